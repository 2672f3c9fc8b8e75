package freeport

import (
	"context"
	"net"
	"syscall"
	"testing"
)

func TestAnAddressIsForServersAndForNobodyElseWhoAsks(t *testing.T) {
	address, err := Address()
	if err != nil {
		t.Fatal(err)
	}
	taken := func() bool {
		alone := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return reuse(c, false) }}
		l, err := alone.Listen(context.Background(), "tcp", address)
		if err == nil {
			_ = l.Close()
		}
		return err != nil
	}
	if !taken() {
		t.Error("it is given out again before a server can listen")
	}
	for range 2 { // and again, as a server does that is started anew
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("a server cannot listen: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !taken() {
		t.Error("between two runs of a server its address is given out")
	}
}
