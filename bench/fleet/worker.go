package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/daemon/link"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// What a worker is told, by its environment.
const (
	workerDir    = "FLEET_WORKER_DIR"
	workerSocket = "FLEET_WORKER_SOCKET"
	workerCount  = "FLEET_WORKER_COUNT"
)

// applied is when links applied which position, in microseconds since 1970.
type applied struct {
	mu sync.Mutex
	at map[uint64][]int64
}

// note records that the entries after a position up to another are in force.
func (a *applied) note(before, now uint64) {
	at := time.Now().UnixMicro()
	a.mu.Lock()
	defer a.mu.Unlock()
	for seq := before + 1; seq <= now; seq++ {
		a.at[seq] = append(a.at[seq], at)
	}
}

// work holds links until it is killed, and tells what they did when asked.
func work(dir string) error {
	n, err := strconv.Atoi(os.Getenv(workerCount))
	if err != nil {
		return err
	}
	seen := &applied{at: map[uint64][]int64{}}
	ctx := context.Background()
	starting := make(chan struct{}, 32) // enrolments at once
	var tasks sync.WaitGroup
	for i := range n {
		starting <- struct{}{}
		l, err := newLink(filepath.Join(dir, strconv.Itoa(i)), seen)
		if err != nil {
			return err
		}
		tasks.Go(func() { _ = l.Run(ctx) }) // it ends with the process
		go func() { <-l.Ready(); <-starting }()
	}
	// Five thousand sidecars share this heap. To collect it takes a second of both
	// cores, which no sidecar ever does with its own: it waits until all is measured.
	runtime.GC()
	debug.SetGCPercent(-1)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		seen.mu.Lock()
		out, err := json.Marshal(seen.at)
		seen.mu.Unlock()
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", out)
	}
	return nil
}

func newLink(dir string, seen *applied) (*link.Link, error) {
	before := uint64(0)
	return link.New(link.Options{
		Log: slog.New(slog.DiscardHandler), Hub: config.Hub{Kind: config.HubLocal, Socket: os.Getenv(workerSocket), SyncInterval: time.Minute},
		ServiceID: "load", StateDir: dir, Version: "bench", Hostname: "simulated",
		Revoke: func(l *revlog.Log) (int, int) {
			seen.note(before, l.Sequence())
			before = l.Sequence()
			return 0, 0
		},
		Status: func() *hubv1.NodeStatus { return &hubv1.NodeStatus{Healthy: true, Mode: "required"} },
	})
}
