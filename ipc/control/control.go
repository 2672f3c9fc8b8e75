// Package control holds what both ends of the control API share beside its
// messages: the version of the contract and the headers.
package control

import (
	"net/http"
	"path"
	"strconv"
	"strings"

	"cyphers.ai/tlsmcp/ipc/problem"
)

// Version is the version of the contract that this build speaks, and VersionMin
// the oldest whose clients may change things. A change that an older client
// would misunderstand raises both.
const (
	Version    = 1
	VersionMin = 1
)

// The headers of a call.
const (
	VersionHeader = "Tlsmcp-Control-Version" // the client's [Version]; absent: it is written by hand
	AgentHeader   = "Tlsmcp-Agent"           // the AI agent in whose name it is made
)

// Agent is what a client says of the AI agent behind it: a claim, kept short and
// printable. The sidecar and the Hub record it beside who called.
func Agent(h http.Header) string {
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, h.Get(AgentHeader))
	return strings.ToValidUTF8(name[:min(len(name), 100)], "")
}

// DefaultSocket is where the first sidecar of a host listens; the sidecar NAME
// has a directory of its own, tlsmcp@NAME.
const DefaultSocket = "/run/tlsmcp/control.sock"

// InstanceSocket is where the sidecar of that name listens; empty: the first.
func InstanceSocket(name string) string {
	if name == "" {
		return DefaultSocket
	}
	return "/run/tlsmcp@" + name + "/control.sock"
}

// InstanceOf is the name of the sidecar with that socket; empty for the first
// one of a host, and for one whose socket is elsewhere.
func InstanceOf(socket string) string {
	_, name, _ := strings.Cut(path.Base(path.Dir(socket)), "@")
	if socket != InstanceSocket(name) {
		return ""
	}
	return name
}

// CheckVersion refuses a client of another version than the daemon's. It may
// still look: what it does not know of an answer it leaves out.
func CheckVersion(h http.Header) error {
	text := h.Get(VersionHeader)
	if text == "" {
		return nil
	}
	v, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return problem.New(problem.Invalid, "bad_version", "leave it out", "the header %s is no number: %q", VersionHeader, text)
	case v < VersionMin:
		return problem.New(problem.Conflict, "client_too_old", "install the tlsmcp that came with the daemon",
			"this client speaks version %d of the control API and the daemon %d: it may look, and not change things", v, Version)
	case v > Version:
		return problem.New(problem.Conflict, "client_too_new", "upgrade and restart tlsmcpd",
			"this client speaks version %d of the control API and the daemon %d: it may look, and not change things", v, Version)
	}
	return nil
}
