package mcp

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestServersAsUnits has the sidecar run a server by way of a socket, behind
// which this test stands for systemd: a process for each connection, with it as
// its standard input. Under a real systemd test/boot does it.
func TestServersAsUnits(t *testing.T) {
	socket := t.TempDir() + "/s"
	l := must(net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"}))(t)
	t.Cleanup(func() { _ = l.Close() })
	units := make(chan *exec.Cmd, 16)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := c.File()
			_ = c.Close()
			if err != nil {
				panic(err)
			}
			cmd := exec.Command(tlsmcpd, "mcp-session")
			cmd.Stdin, cmd.Stderr = f, os.Stderr
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			_ = f.Close()
			units <- cmd
		}
	}()
	config := strings.Replace(stdioConfig(nil, npm.Server("everything"), "stdio"), "[mcp_gateway]\n", fmt.Sprintf("[mcp_gateway]\nchild_socket = %q\n", socket), 1)
	w := start(t, config)
	full := newSDK(t, w.connectLine("full")...)
	full.do("connect")
	unit := <-units
	if got := said(full.tool("trigger-elicitation-request", object{})); !strings.Contains(got, "Ada") {
		t.Errorf("said %q", got)
	}
	servers := below(unit.Process.Pid)
	if len(servers) == 0 {
		t.Fatal("the server is not below its unit")
	}
	limited := newSDK(t, w.connectLine("limited")...)
	limited.do("connect")
	if other := <-units; other.Process.Pid == unit.Process.Pid {
		t.Error("two sessions share a unit")
	} else {
		go func() { _ = other.Wait() }()
	}
	w.revoke(2, w.serialOf("full"))
	if err := unit.Wait(); err != nil {
		t.Errorf("the unit ended with %v", err)
	}
	awaitDead(t, servers)
	w.await(`"mcp server ended"`, `"identity":"full"`)
	limited.tool("echo", object{"message": "x"})
}
