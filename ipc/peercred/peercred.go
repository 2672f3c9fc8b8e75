// Package peercred tells which local user is at the other end of a Unix
// socket, or of a connection over loopback. The kernel says it (SO_PEERCRED,
// SO_PEERGROUPS, its table of sockets), at the time of the connection: nothing
// that the peer sends can change it.
package peercred

import (
	"context"
	"net"
	"slices"
)

// Cred is who connected.
type Cred struct {
	UID, GID uint32
	PID      int32
	Groups   []uint32 // supplementary
}

// InGroup tells whether the user is in a group, by its primary group or another.
func (c Cred) InGroup(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }

type key struct{}

// Context is for http.Server.ConnContext: requests on a Unix socket carry who
// sent them. A connection whose peer cannot be told carries nobody.
func Context(ctx context.Context, c net.Conn) context.Context {
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := Of(unix)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, cred)
}

// From is who sent the request of a context; false when it came another way.
func From(ctx context.Context) (Cred, bool) {
	c, ok := ctx.Value(key{}).(Cred)
	return c, ok
}
