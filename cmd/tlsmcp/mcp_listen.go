package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/mcp/server"
)

// selfSecureSocket is where the server listens behind a sidecar.
const selfSecureSocket = "unix:/run/tlsmcp-mcp/mcp.sock"

// listen opens where clients come in over HTTP.
func (v *mcpServe) open() (net.Listener, error) {
	if path, ok := strings.CutPrefix(v.listen, "unix:"); ok {
		return v.openUnix(path)
	}
	host, _, err := net.SplitHostPort(v.listen)
	if err != nil {
		return nil, &failure{exitUsage, fmt.Errorf("--listen %s: %w", v.listen, err), `write it like "127.0.0.1:3001" or "unix:/run/mcp.sock"`}
	}
	ip := net.ParseIP(host)
	if v.selfSecure || ip == nil || !ip.IsLoopback() {
		return nil, &failure{exitUsage, fmt.Errorf("--listen %s would be reached without a certificate", v.listen),
			"listen on 127.0.0.1 or [::1]; for others, --self-secure with a sidecar in front (docs/mcp-server.md)"}
	}
	l, err := net.Listen("tcp", v.listen)
	if err != nil {
		return nil, &failure{exitRefused, err, "is another program there?"}
	}
	return l, nil
}

// openUnix makes the socket. Behind a sidecar, whose user is another one, anybody
// may connect, and the kernel says who it is.
func (v *mcpServe) openUnix(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, &failure{exitUsage, fmt.Errorf("--listen %s: the path is not absolute", v.listen), "write it like unix:/run/mcp.sock"}
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, &failure{exitRefused, fmt.Errorf("another program serves %s", path), "stop it, or listen elsewhere with --listen"}
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path) // nobody serves it
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, &failure{exitRefused, err, "is its directory there, and writable for this user?"}
	}
	mode := os.FileMode(0o600)
	if v.selfSecure {
		mode = 0o666
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// proxyUsers are the ids of the users whose processes may connect besides root
// and this one: that of the sidecar in front.
func (v *mcpServe) proxyUsers() ([]uint32, error) {
	if !v.selfSecure {
		return nil, nil
	}
	u, err := user.Lookup(v.proxyUser)
	var unknown user.UnknownUserError
	switch {
	case errors.As(err, &unknown) && v.proxyUser == defaultProxyUser:
		return nil, nil // no package is installed: the sidecar runs as this user
	case err != nil:
		return nil, &failure{exitUsage, err, "--proxy-user names the user of the sidecar in front"}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return []uint32{uint32(uid)}, err
}

func (v *mcpServe) http() (server.HTTP, error) {
	users, err := v.proxyUsers()
	return server.HTTP{SSE: v.transport == "sse", Origins: v.origins, Users: users}, err
}
