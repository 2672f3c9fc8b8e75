package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxCount bounds numbers of things: no real host passes it, so more is a slip
// of the finger.
const maxCount = 1_000_000

// hub resolves [hub].
func (r *resolver) hub(f *FileHub) Hub {
	h := Hub{
		CAFile:        r.relative("hub.ca_file", f.CAFile),
		AuthTokenFile: r.relative("hub.auth_token_file", f.AuthTokenFile),
		AuthToken:     f.AuthToken,
		SyncInterval:  r.atLeast("hub.sync_interval", f.SyncInterval, Duration(1e9)),
		Socket:        r.socket("hub.socket", f.Socket),
	}
	switch f.URL {
	case "none":
	case "local":
		h.Kind = HubLocal
	default:
		h.Kind, h.URL = HubRemote, f.URL
		if err := checkURL(f.URL, "https"); err != nil {
			r.fault("hub.url", `"local", "none" or "https://host:port"`, "%v", err)
		}
	}
	switch {
	case f.AuthToken != "" && f.AuthTokenFile != "":
		r.fault("hub.auth_token", "keep auth_token_file", "is given together with auth_token_file")
	case f.AuthToken != "":
		r.warn("hub.auth_token", "put the token in a file that only the daemon can read, and name it in hub.auth_token_file",
			"is written in the configuration itself, where whoever reads the file has it")
	}
	return h
}

// checkURL checks a URL without repeating it: it may carry a password.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || !slices.Contains(schemes, u.Scheme) || u.Hostname() == "":
		return fmt.Errorf("must be a URL that begins with %s://", strings.Join(schemes, ":// or "))
	case u.User != nil:
		return errors.New("must not carry a user name or password")
	case u.Fragment != "":
		return errors.New("must not have a fragment (#)")
	}
	return nil
}

// listen resolves [listen].
func (r *resolver) listen(f *FileListen) Listen {
	const sec = Duration(1e9)
	r.oneOf("listen.protocol", f.Protocol, "tls13")
	l := Listen{
		MaxConnections:   int(r.within("listen.max_connections", f.MaxConnections, 1, maxCount)),
		HandshakeTimeout: r.atLeast("listen.handshake_timeout", f.HandshakeTimeout, sec/1000),
		HeaderTimeout:    r.atLeast("listen.header_timeout", f.HeaderTimeout, sec/1000),
		IdleTimeout:      r.atLeast("listen.idle_timeout", f.IdleTimeout, sec/1000),
		DrainTimeout:     r.atLeast("listen.drain_timeout", f.DrainTimeout, 0),
		HandshakesPerIP:  int(r.within("listen.handshakes_per_ip", f.HandshakesPerIP, 0, maxCount)),
		MaxHeaderBytes:   int(f.MaxHeaderBytes),
	}
	if f.MaxHeaderBytes < 1<<10 || f.MaxHeaderBytes > 1<<20 {
		r.fault("listen.max_header_bytes", "", "must be from 1KiB to 1MiB, not %s", f.MaxHeaderBytes)
	}
	if len(f.Address) == 0 {
		r.fault("listen.address", `write "0.0.0.0:8443"`, "is empty: there is nothing to listen on")
	}
	for i, s := range f.Address {
		key := "listen.address"
		if k := itemKey(key, i); r.set(k) {
			key = k
		}
		addr, err := addrPort(s)
		switch {
		case err != nil:
			r.fault(key, listenHint(s), "%v", err)
		case addr.Port() != 0 && slices.Contains(l.Addresses, addr):
			r.fault(key, "remove one", "is there twice: %s", addr)
		default:
			l.Addresses = append(l.Addresses, addr)
		}
	}
	for i, s := range r.items("listen.proxy_protocol_from", f.ProxyProtocolFrom) {
		p, err := netip.ParsePrefix(s)
		key := itemKey("listen.proxy_protocol_from", i)
		if err != nil {
			hint := `write it like "10.0.0.0/8"`
			if ip, err := netip.ParseAddr(s); err == nil {
				hint = fmt.Sprintf("for this address alone write \"%s/%d\"", ip, ip.BitLen())
			}
			r.fault(key, hint, "%q is not a network in CIDR form", s)
			continue
		}
		if slices.Contains(l.ProxyProtocolFrom, p) {
			r.fault(key, "remove one", "is there twice: %q", s)
		}
		if p != p.Masked() {
			r.fault(key, fmt.Sprintf("write %q", p.Masked()), "%q has bits set beyond its length", s)
		}
		l.ProxyProtocolFrom = append(l.ProxyProtocolFrom, p)
	}
	return l
}

// listenHint says how to write an address to listen on.
func listenHint(s string) string {
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		return fmt.Sprintf(`write "127.0.0.1:%s" or "[::1]:%s"; localhost may be either`, port, port)
	}
	return `write it like "0.0.0.0:8443", "[::]:8443" or ":8443"`
}

// addrPort reads "IP:port" or ":port", which is every address of the host.
func addrPort(s string) (netip.AddrPort, error) {
	if strings.HasPrefix(s, ":") {
		s = "[::]" + s
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		if host, _, _ := strings.Cut(s, ":"); strings.Count(s, ":") == 1 && strings.ContainsFunc(host, isLetter) {
			return netip.AddrPort{}, fmt.Errorf("must have an IP address, not a name: %q", s)
		}
		return netip.AddrPort{}, fmt.Errorf("must be an IP address and a port, not %q", s)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

// isLetter tells the name of a host from an IPv4 address.
func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// loopback reads an address of this host that nobody else can reach.
// localhost is taken as 127.0.0.1: it never leaves the host either.
func (r *resolver) loopback(key, s string) netip.AddrPort {
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	addr, err := addrPort(s)
	if err != nil || !addr.Addr().IsLoopback() {
		r.fault(key, `write it like "127.0.0.1:9090"`, "must be a loopback address and a port, not %q", s)
	}
	return addr
}

// backend resolves [backend].
func (r *resolver) backend(f *FileBackend) Backend {
	p := Protocol(r.oneOf("backend.protocol", f.Protocol, string(ProtocolHTTP), string(ProtocolH2C),
		string(ProtocolTCP), string(ProtocolMCP), string(ProtocolMCPStdio)))
	b := Backend{
		Protocol:        p,
		Path:            f.Path,
		ConnectTimeout:  r.atLeast("backend.connect_timeout", f.ConnectTimeout, Duration(1e6)),
		ResponseTimeout: r.atLeast("backend.response_timeout", f.ResponseTimeout, 0),
		PoolSize:        int(r.within("backend.pool_size", f.PoolSize, 1, maxCount)),
		ProxyProtocol:   f.ProxyProtocol,
	}
	if !strings.HasPrefix(f.Path, "/") || strings.ContainsAny(f.Path, "?# \t\r\n") {
		r.fault("backend.path", `write it like "/mcp"`, "must be a path that begins with a slash, not %q", f.Path)
	}
	if f.ProxyProtocol && p != ProtocolTCP {
		r.fault("backend.proxy_protocol", `it is for backend.protocol = "tcp"`, "cannot be used with protocol %s", p)
	}
	known := []IdentityHeader{HeaderClientCert, HeaderClientCertChain, HeaderXFCC, HeaderXTlsmcp}
	for i, s := range r.items("backend.identity_headers", f.IdentityHeaders) {
		if h := IdentityHeader(s); slices.Contains(known, h) {
			b.IdentityHeaders = append(b.IdentityHeaders, h)
			continue
		}
		r.fault(itemKey("backend.identity_headers", i), "client-cert, client-cert-chain, xfcc or x-tlsmcp",
			"%q is not a header that can be sent", s)
	}
	if p == ProtocolTCP && r.set("backend.identity_headers") && len(f.IdentityHeaders) > 0 {
		r.warn("backend.identity_headers", "backend.proxy_protocol = true tells a tcp backend who called",
			"has no effect with protocol tcp, which has no headers")
	}
	if p == ProtocolMCPStdio {
		r.command(f, &b)
		return b
	}
	for _, k := range []struct {
		key string
		set bool
	}{{"backend.command", len(f.Command) > 0}, {"backend.env", len(f.Env) > 0}} {
		if k.set {
			r.fault(k.key, `it is for backend.protocol = "mcp-stdio"`, "cannot be used with protocol %s", p)
		}
	}
	b.Network, b.Address = r.backendAddress(f.Address)
	return b
}

// command resolves what an mcp-stdio backend runs. The values of env may be
// secrets and are never quoted.
func (r *resolver) command(f *FileBackend, b *Backend) {
	b.Command, b.Env = slices.Clone(f.Command), f.Env
	if len(f.Env) == 0 {
		b.Env = nil
	}
	if len(f.Command) == 0 || f.Command[0] == "" {
		r.fault("backend.command", `write command = ["/usr/bin/server", "--flag"]`, "is required with protocol mcp-stdio")
	}
	for i, s := range f.Command {
		if strings.ContainsRune(s, 0) {
			r.fault(itemKey("backend.command", i), "", "holds a NUL")
		}
	}
	for name, value := range f.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			r.fault(join("backend.env", name), "", "is not a variable of the environment")
		}
	}
	if f.Address != "" && r.set("backend.address") {
		r.fault("backend.address", "remove it", "cannot be used with protocol mcp-stdio, which runs a command")
	}
}

// backendAddress resolves where the backend is. What is not on this host is
// refused.
func (r *resolver) backendAddress(s string) (network, address string) {
	const hint = `write it like "127.0.0.1:3000" or "unix:/run/app.sock"`
	if name, ok := strings.CutPrefix(s, "unix:"); ok {
		if !path.IsAbs(name) || strings.ContainsRune(name, 0) || len(name) > maxSocketPath {
			r.fault("backend.address", hint, "must name a Unix socket by its absolute path, of at most %d bytes", maxSocketPath)
		}
		return "unix", name
	}
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil || !addr.Addr().Unmap().IsLoopback() || addr.Port() == 0 {
		r.fault("backend.address", hint,
			"must be loopback or a Unix socket: TLS ends here and what follows is plain; it is %q", s)
		return "tcp", ""
	}
	return "tcp", netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
}

// rate reads "N/s", "N/m" or "N/h".
func rate(s string) (calls int, per Duration, err error) {
	number, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n > maxCount {
		return 0, 0, fmt.Errorf("must be a number of calls and a unit, not %q", s)
	}
	for _, u := range []string{"s", "m", "h"} {
		if unit == u {
			per, err = ParseDuration("1" + u)
			return int(n), per, err
		}
	}
	return 0, 0, fmt.Errorf("must be a number of calls and a unit, not %q", s)
}
