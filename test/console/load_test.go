package console

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
)

// fire is a control API that sends as many events as a test wants. A real
// sidecar that made them all would take the processor that is measured here.
type fire struct {
	controlv1connect.UnimplementedControlServiceHandler
	rate atomic.Int64 // events a second
	sent atomic.Uint64
}

func (f *fire) Hello(context.Context, *controlv1.HelloRequest) (*controlv1.HelloResponse, error) {
	return &controlv1.HelloResponse{ApiVersion: 1, ApiVersionMin: 1, ServiceId: "fire", Caller: &controlv1.Caller{Role: "operator"}}, nil
}

func (f *fire) GetStatus(context.Context, *controlv1.GetStatusRequest) (*controlv1.Status, error) {
	return &controlv1.Status{ServiceId: "fire", Ready: true, StartedAt: timestamppb.New(time.Now().Add(-time.Hour)), Counters: &controlv1.Counters{}}, nil
}

func (f *fire) ListConnections(context.Context, *controlv1.ListConnectionsRequest) (*controlv1.ListConnectionsResponse, error) {
	return &controlv1.ListConnectionsResponse{}, nil
}

func (f *fire) WatchEvents(ctx context.Context, _ *controlv1.WatchEventsRequest, out *connect.ServerStream[controlv1.EventBatch]) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		b := &controlv1.EventBatch{}
		for range f.rate.Load() / 10 {
			n := f.sent.Add(1)
			b.Events = append(b.Events, &controlv1.Event{Sequence: n, Time: timestamppb.Now(), Kind: "accepted", Identity: fmt.Sprintf("spiffe://prod.example/service/client-%d", n%500),
				Remote: fmt.Sprintf("10.1.%d.%d:4000", n>>8&255, n&255), Serial: strconv.FormatUint(n%500, 16), TlsVersion: "TLS 1.3", TlsGroup: "X25519MLKEM768", DurationMs: 1.5, Connection: n})
		}
		if first || len(b.Events) > 0 { // as the daemon does
			if err := out.Send(b); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *fire) WatchCounters(ctx context.Context, _ *controlv1.WatchCountersRequest, out *connect.ServerStream[controlv1.Counters]) error {
	for {
		if err := out.Send(&controlv1.Counters{Accepted: f.sent.Load()}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// light serves a fire at a socket.
func light(t *testing.T) (f *fire, socket string) {
	t.Helper()
	f = new(fire)
	socket = filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewControlServiceHandler(f))
	s := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return f, socket
}

// process is what the kernel counts of a process.
type process struct {
	t   *testing.T
	pid string
}

// process finds the console of a terminal: the child of its shell.
func (p *person) process() process {
	p.t.Helper()
	shell, err := p.Ask("#{pane_pid}")
	if err != nil {
		p.t.Fatal(err)
	}
	children, err := os.ReadFile("/proc/" + shell + "/task/" + shell + "/children")
	if err != nil || len(strings.Fields(string(children))) != 1 {
		p.t.Fatalf("the console is not there: %q, %v", children, err)
	}
	return process{p.t, strings.TrimSpace(string(children))}
}

// cpu is the processor time so far.
func (p process) cpu() time.Duration {
	p.t.Helper()
	raw, err := os.ReadFile("/proc/" + p.pid + "/stat")
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return time.Duration(user+system) * 10 * time.Millisecond // a tick is a hundredth of a second on every Linux
}

// resident is the memory in KiB.
func (p process) resident() int {
	p.t.Helper()
	raw, err := os.ReadFile("/proc/" + p.pid + "/status")
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// TestIdleCostsNothing: a console at which nothing happens takes under one percent
// of a processor. The least of a few spans counts, because a machine that does
// other things makes everything take longer.
func TestIdleCostsNothing(t *testing.T) {
	_, socket := light(t)
	p := sit(t, 80, 24, socket, "")
	p.sees("fire", "live")
	pr := p.process()
	time.Sleep(2 * time.Second) // what it takes to begin
	share := 100.0
	for range 10 {
		before, began := pr.cpu(), time.Now()
		time.Sleep(6 * time.Second)
		share = min(share, float64(pr.cpu()-before)/float64(time.Since(began))*100)
		if share < 1 {
			break
		}
	}
	t.Logf("idle: %.2f%% of a processor, %d KiB resident", share, pr.resident())
	if share >= 1 {
		t.Errorf("an idle console takes %.2f%% of a processor", share)
	}
}

// TestFiveThousandEventsASecond: the feed does not fall behind. What is on the
// screen is what was sent a moment ago, and nothing was dropped.
func TestFiveThousandEventsASecond(t *testing.T) {
	f, socket := light(t)
	p := sit(t, 110, 30, socket, "")
	p.sees("fire", "live")
	p.press("3")
	f.rate.Store(5000)
	pr := p.process()
	time.Sleep(time.Second)
	before, began := pr.cpu(), time.Now()
	time.Sleep(6 * time.Second)
	share := float64(pr.cpu()-before) / float64(time.Since(began)) * 100
	behind := -1
	caught := eventually(func() bool {
		sent := f.sent.Load()
		shown := lastShown(p.screen())
		behind = (int(sent%65536) - shown + 65536) % 65536
		return shown >= 0 && behind < 2500 // half a second, of which a tenth is the pace
	})
	t.Logf("5,000 events a second: %.1f%% of a processor, %d KiB resident, %d events behind", share, pr.resident(), behind)
	if !caught {
		t.Errorf("the screen is %d events behind", behind)
	}
	if text := p.screen(); strings.Contains(text, "dropped") {
		t.Errorf("events were dropped:\n%s", text)
	}
}

// lastShown reads the number of the last event off the screen: the last two bytes
// of its address are the low bits of it.
func lastShown(screen string) int {
	last := -1
	for _, line := range strings.Split(screen, "\n") {
		_, rest, ok := strings.Cut(line, " 10.1.")
		if !ok {
			continue
		}
		high, low, ok := strings.Cut(strings.Fields(rest)[0], ".")
		if !ok {
			continue
		}
		h, err1 := strconv.Atoi(high)
		l, err2 := strconv.Atoi(low)
		if err1 == nil && err2 == nil {
			last = h<<8 + l
		}
	}
	return last
}

// TestMemoryIsFlat lets 500 events a second come for a while: seconds here, ten
// minutes in ./task soak.
func TestMemoryIsFlat(t *testing.T) {
	span := 12 * time.Second
	if text := os.Getenv("TLSMCP_CONSOLE_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		span = d
	}
	f, socket := light(t)
	p := sit(t, 120, 40, socket, "")
	p.sees("fire", "live")
	f.rate.Store(5000) // until it holds as many as it ever will
	if !eventually(func() bool { return f.sent.Load() >= 25_000 }) {
		t.Fatalf("only %d events were sent", f.sent.Load())
	}
	f.rate.Store(500)
	pr := p.process()
	settled := 0
	for end := time.Now().Add(span / 3); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		settled = max(settled, pr.resident())
	}
	most := 0
	for end := time.Now().Add(span * 2 / 3); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		most = max(most, pr.resident())
	}
	t.Logf("resident after it settled: at most %d KiB; in the %s after: at most %d KiB", settled, span*2/3, most)
	if most > settled*5/4+4096 {
		t.Errorf("memory grows: %d KiB, then %d KiB", settled, most)
	}
}
