package peercred

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of asks the kernel who is at the other end.
func Of(c *net.UnixConn) (Cred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", err)
	}
	var out Cred
	var inner error
	err = raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		out.UID, out.GID, out.PID = u.Uid, u.Gid, u.Pid
		out.Groups, inner = groups(int(fd))
	})
	if err := errors.Join(err, inner); err != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", err)
	}
	return out, nil
}

// groups reads SO_PEERGROUPS, which x/sys/unix has no function for. The kernel
// says how much room it needs when there is too little.
func groups(fd int) ([]uint32, error) {
	for n := 32; ; {
		list := make([]uint32, n)
		size := uint32(n * 4)
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return list[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > n:
			n = int(size / 4)
		default:
			return nil, errno
		}
	}
}
