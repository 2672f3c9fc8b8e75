package boot

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestUnits holds the units to what can be said of them without booting anything.
func TestUnits(t *testing.T) {
	t.Run("an instance's unit is the daemon's, under another name", func(t *testing.T) {
		one, many := unitText(t, "tlsmcpd.service"), unitText(t, "tlsmcpd@.service")
		same := strings.NewReplacer("local program\n", "local program (%i)\n", "/etc/tlsmcp/tlsmcp.toml", "/etc/tlsmcp/%i.toml",
			"StateDirectory=tlsmcp\n", "StateDirectory=tlsmcp@%i\n", "RuntimeDirectory=tlsmcp\n", "RuntimeDirectory=tlsmcp@%i\n").Replace(one)
		if same != many {
			t.Error("tlsmcpd@.service differs from tlsmcpd.service in more than names")
		}
	})
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: test/needs.sh installs it", err)
		}
		t.Skipf("%v: test/needs.sh installs it", err)
	}
	for _, unit := range []string{"tlsmcpd.service", "tlsmcpd@.service", "tlsmcp-hub.service", "tlsmcp-mcp.service"} {
		t.Run(unit+" leaves little to what runs in it", func(t *testing.T) {
			// The threshold is in tenths: an exposure of 2.0 at most.
			cmd := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", "../../systemd/"+unit)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func unitText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../systemd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
