package console

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/console/stage"
)

func TestAPersonWatchesRevokesAndSeesTheDaemonComeBack(t *testing.T) {
	s := play(t, nil, "web", "batch")
	web, batch := issue(t, s, "client", "web"), issue(t, s, "client", "batch")
	p := sit(t, 112, 30, s.Socket, "")
	p.sees("edge-01", "live", "Certificates", "web", "batch")

	// A handshake arrives, and one that is refused.
	conn, err := batch.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.press("3")
	p.sees("✓ accepted", "batch", "X25519MLKEM768")
	_ = s.Stranger().Visit()
	p.sees("× refused", "no certificate")
	if err := web.Visit(); err != nil {
		t.Fatal(err)
	}
	p.sees("web")

	// A filter narrows the list and can be dropped.
	p.press("/")
	p.types("refused")
	p.sees("/refused  1 of")
	if text := p.screen(); strings.Contains(text, "accepted") {
		t.Errorf("the filter lets others through:\n%s", text)
	}
	p.press("Escape")
	p.sees("accepted")

	// x asks, y does it: the connection is cut, and that shows.
	p.press("2", "/")
	p.types("batch")
	p.press("Enter")
	p.sees("/batch  1 of")
	p.press("r") // so that the count of connections is current
	p.sees("now")
	p.press("x")
	p.sees("Revoke batch", "Closes 1 live connection on this host", "Cancel")
	p.press("y")
	p.sees("1 certificate revoked: applied by 1 of 1 sidecar", "1 connection cut")
	p.sees("⊘ revoked")
	if err := stage.Call(conn); err == nil {
		t.Error("the connection lives on")
	}
	p.leaves("/batch")
	p.press("3")
	p.sees("closed: revoked")
	if err := batch.Visit(); err == nil {
		t.Error("a revoked client was let in")
	}
	p.sees("refused: revoked")

	p.daemonDiesAndComesBack(s, web)
	p.press("q")
	p.sees("left with 0")
	if on, err := p.Ask("#{alternate_on}"); err != nil || on != "0" {
		t.Errorf("the terminal is left on its other screen: %q, %v", on, err)
	}
}

// daemonDiesAndComesBack kills the daemon under the console and starts it again.
func (p *person) daemonDiesAndComesBack(s *stage.Stage, web *stage.Client) {
	p.t.Helper()
	p.press("1")
	s.KillDaemon()
	p.sees("Disconnected for", "r now", "web") // what was known stays
	if err := s.StartDaemon(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	p.press("r")
	p.sees("live")
	if eventually(func() bool { return !strings.Contains(p.screen(), "Disconnected") }); strings.Contains(p.screen(), "Disconnected") {
		p.t.Fatal("the banner stays")
	}
	p.press("3")
	if err := web.Visit(); err != nil {
		p.t.Fatal(err)
	}
	p.sees("✓ accepted", "web")
}

// TestTheScoreFollowsWhatIsChangedInTheConsole changes the policy by a form of
// the palette: everybody may call. That costs points, and shows. (What the sidecar
// measures of itself comes in by and by, so the number alone would say little.)
func TestTheScoreFollowsWhatIsChangedInTheConsole(t *testing.T) {
	s := play(t, nil, "web")
	p := sit(t, 140, 40, s.Socket, "")
	p.sees("/100", "1 Overview")
	p.press("5", "/")
	p.types("M2")
	p.press("Enter")
	p.sees("✓ pass    M2", "default deny")
	p.press(":")
	p.types("hub policy set")
	p.press("Enter")
	p.sees("hub policy set", "allow-all")
	p.types("edge-01")
	p.walksTo("▸ allow-all")
	p.press("y")
	p.sees("< yes >")
	p.press("C-s")
	p.sees("policy of edge-01 is at version")
	if !eventually(func() bool {
		p.press("r")
		time.Sleep(time.Second)
		text := p.screen()
		return strings.Contains(text, "× fail    M2") && strings.Contains(text, "anybody with a certificate is let in")
	}) {
		t.Fatal("the score does not notice that everybody may call")
	}
}

func TestAViewerMayLookAndIsToldWhyNot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make users; CI is root")
	}
	const name, group = "tlsmcpc-vera", "tlsmcpc-look"
	_ = exec.Command("userdel", name).Run() // one that a run left that was killed
	for _, args := range [][]string{{"groupadd", "-f", group}, {"useradd", "--no-create-home", "--user-group", "--groups", group, name}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		_ = exec.Command("userdel", name).Run()
		_ = exec.Command("groupdel", group).Run()
	})
	if _, err := user.Lookup(name); err != nil {
		t.Fatal(err)
	}
	s := play(t, []string{group}, "web")
	if err := issue(t, s, "client", "web").Visit(); err != nil {
		t.Fatal(err)
	}
	p := sit(t, 110, 30, s.Socket, "setpriv --reuid="+name+" --regid="+name+" --init-groups env HOME=/")
	p.sees("read-only", "handshakes/min")
	p.press("3")
	p.sees("✓ accepted", "web")
	p.press("x")
	p.sees("revoke:", "join the group")
	p.press(":")
	p.types("reload")
	p.press("Enter")
	p.sees("reload:", "join the group")

	q := sit(t, 100, 30, s.Socket, "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/")
	q.sees("Denied", "uid 65534", s.Socket, "group "+group)
}

// TestAResizeStormLeavesAWholePicture changes the size as fast as tmux does it,
// while things happen.
func TestAResizeStormLeavesAWholePicture(t *testing.T) {
	s := play(t, nil, "web")
	web := issue(t, s, "client", "web")
	p := sit(t, 80, 24, s.Socket, "")
	p.sees("live", "web")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		if err := p.Resize(20+rng.IntN(160), 4+rng.IntN(50)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			p.press(string(rune('1' + i/10)))
			if err := web.Visit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Resize(80, 24); err != nil {
		t.Fatal(err)
	}
	p.press("3")
	whole := func() bool {
		lines := strings.Split(strings.TrimSuffix(p.screen(), "\n"), "\n")
		return len(lines) == 24 && strings.Contains(lines[0], "edge-01") && strings.HasPrefix(lines[1], "┌ Feed") && strings.HasPrefix(lines[22], "└") && strings.Contains(lines[23], "q quit") &&
			strings.Count(strings.Join(lines, "\n"), "┌") == 1
	}
	if !eventually(whole) {
		t.Errorf("what is left is no whole picture:\n%s", p.screen())
	}
}

func TestWithoutColoursAndWithAsciiAlone(t *testing.T) {
	s := play(t, nil, "web")
	p := sit(t, 80, 24, s.Socket, "env NO_COLOR=1", "--ascii")
	p.sees("[1 Over]", "+ Certificates", "edge-01")
	picture, err := p.Picture()
	if err != nil {
		t.Fatal(err)
	}
	// 39 and 49 are no colours: tmux writes them where one ends.
	if c := regexp.MustCompile("\x1b\\[([0-9;]*;)?([34][0-8]|9[0-7]|10[0-7])[;m]").FindString(picture); c != "" {
		t.Errorf("NO_COLOR shows a colour: %q", c)
	}
	if i := strings.IndexFunc(picture, func(r rune) bool { return r > '~' }); i >= 0 {
		t.Errorf("--ascii shows %q", picture[i:min(i+8, len(picture))])
	}
}

func TestCopyReachesTheTerminalsClipboard(t *testing.T) {
	s := play(t, nil, "web")
	web := issue(t, s, "client", "web")
	p := sit(t, 100, 30, s.Socket, "")
	p.sees("web", "live")
	p.press("2", "/")
	p.types("web")
	p.press("Enter", "y")
	p.sees("id copied")
	if text, err := p.Clipboard(); err != nil || text != web.Cert.GetId() {
		t.Errorf("the clipboard holds %q, %v; it should hold %q", text, err, web.Cert.GetId())
	}
}

func TestTheViewIsExportedAndACertificateIssued(t *testing.T) {
	s := play(t, nil, "web")
	dir := t.TempDir()
	p := sit(t, 110, 32, s.Socket, "cd "+dir+" &&")
	p.sees("edge-01", "Certificates", "node")
	p.press(":")
	p.types("cert issue")
	p.press("Enter")
	p.sees("Get a certificate from the Hub")
	p.press("Down")
	p.types("reports")
	p.press("C-s")
	p.sees("client certificate of reports issued", "reports.key")
	for _, f := range []string{"reports.crt", "reports.key", "ca.crt"} {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil || f == "reports.key" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	p.leaves("reports.key")
	p.press("2", "e")
	p.sees("Export")
	p.press("C-s")
	p.sees("rows written to tlsmcp-certificates-")
	files, _ := filepath.Glob(filepath.Join(dir, "tlsmcp-certificates-*.csv"))
	if len(files) != 1 {
		t.Fatalf("exported: %v", files)
	}
	if raw, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(raw), ",reports,client,") {
		t.Errorf("the file holds %q, %v", raw, err)
	}
}

// TestRenewCloseRevokeANameAndLiftIt is the rest of what changes something, by
// keys and by the palette's forms.
func TestRenewCloseRevokeANameAndLiftIt(t *testing.T) {
	s := play(t, nil, "web")
	web := issue(t, s, "client", "web")
	conn, err := web.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dir := t.TempDir()
	p := sit(t, 110, 32, s.Socket, "cd "+dir+" &&")
	p.sees("web", "live")
	p.press("2", "/")
	p.types("web")
	p.press("Enter")
	p.sees("/web  1 of")
	p.press("r")
	p.sees("now")
	p.press("c")
	p.sees("Close 1 connection", "x keeps it out")
	p.press("y")
	p.sees("1 connection closed")
	if err := stage.Call(conn); err == nil {
		t.Error("the connection lives on")
	}
	p.press("n")
	p.sees("Renew web")
	p.press("C-s")
	p.sees("client certificate of web issued", "web.key")
	p.press("Escape")
	p.sees("/web  2 of")

	p.press(":")
	p.types("cert revoke")
	p.press("Enter")
	p.sees("or a name with all its certificates", "reason")
	p.press("Down", "Down")
	p.types("web")
	p.press("C-s")
	p.sees("2 certificates revoked: applied by 1 of 1")
	if err := web.Visit(); err == nil {
		t.Error("a client of a revoked service was let in")
	}
	p.press(":")
	p.types("cert lift")
	p.press("Enter", "Down")
	p.types("web")
	p.press("C-s")
	p.sees("service web may be used again")
	if err := issue(t, s, "client", "web").Visit(); err != nil {
		t.Errorf("with a new certificate after the lift: %v", err)
	}
}
