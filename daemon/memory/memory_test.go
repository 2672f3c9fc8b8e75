package memory

import (
	"context"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestTrimmingWaitsForRestAndForEnoughToGain goes through looks in the order of
// their time.
func TestTrimmingWaitsForRestAndForEnoughToGain(t *testing.T) {
	const mb = 1 << 20
	type look struct {
		rule     string
		heap     heap
		due      bool
		leftOver uint64 // resident after it, when due
	}
	var tr trimmer
	for _, l := range []look{
		{"the start is work", heap{4 * mb, 5 * mb}, false, 0},
		{"rest", heap{4*mb + 100, 5 * mb}, true, 3 * mb},
		{"nothing has come since", heap{4*mb + 200, 3 * mb}, false, 0},
		{"too little to gain", heap{4*mb + 300, 4 * mb}, false, 0},
		{"a burst", heap{900 * mb, 300 * mb}, false, 0},
		{"the burst goes on", heap{1000 * mb, 300 * mb}, false, 0},
		{"rest again, much is in use", heap{1000*mb + 1, 300 * mb}, true, 160 * mb},
		{"a megabyte is little against what is in use", heap{1000*mb + 2, 190 * mb}, false, 0},
		{"a quarter is not", heap{1000*mb + 3, 201 * mb}, true, 100 * mb},
	} {
		if due := tr.due(l.heap); due != l.due {
			t.Errorf("%s: due %t, want %t", l.rule, due, l.due)
		}
		if l.due {
			tr.done(heap{l.heap.allocated, l.leftOver})
		}
	}
}

// TestKeepReturnsWhatABurstLeft: memory that was used goes back to the system
// though nobody asks for more.
func TestKeepReturnsWhatABurstLeft(t *testing.T) {
	const size = 64 << 20
	burst := make([]byte, size)
	for i := 0; i < len(burst); i += 4096 {
		burst[i] = 1
	}
	with := readHeap(heapSamples()).resident
	if with < size {
		t.Fatalf("%d bytes are resident with %d in use", with, size)
	}
	runtime.KeepAlive(burst)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Keep(ctx, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-done }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		now := readHeap(heapSamples()).resident
		if now < with-size/2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are resident, %d were with the burst", now, with)
		}
	}
}

const smaps = `00400000-00a78000 r-xp 00000000 fe:00 17 /usr/bin/tlsmcpd
Size:               6624 kB
Rss:                6048 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00a78000-01167000 r--p 00678000 fe:00 17 /usr/bin/tlsmcpd
Rss:                6140 kB
Anonymous:             4 kB
01167000-011ea000 rw-p 00d67000 fe:00 17 /usr/bin/tlsmcpd
Rss:                 428 kB
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 18 /usr/lib/other
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000004000-7f0000005000 r--p 00000000 fe:00 17 /usr/bin/tlsmcpd
Anonymous:             0 kB
`

func TestOnlyWhatIsAsInTheFileIsUnmapped(t *testing.T) {
	got, err := untouched(strings.NewReader(smaps), "/usr/bin/tlsmcpd")
	want := []span{{0x400000, 0xa78000}, {0x7f0000004000, 0x7f0000005000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if got, err := untouched(strings.NewReader("004x0000-00a78000 r-xp 0 fe:00 17 /f\n"), "/f"); err == nil {
		t.Errorf("a range that is none: %x", got)
	}
	if _, err := untouched(io.MultiReader(strings.NewReader(smaps), failing{}), "/f"); err == nil {
		t.Error("a table that breaks off is no fault")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, os.ErrClosed }

// TestForgettingTheStartUnmapsAndChangesNothing: the program goes on, on other
// threads too, and is mapped again where it is needed.
func TestForgettingTheStartUnmapsAndChangesNothing(t *testing.T) {
	var stop atomic.Bool
	sum := make(chan int)
	go func() {
		n := 0
		for !stop.Load() {
			n += len(strings.Fields(strings.ToUpper("a b c")))
		}
		sum <- n
	}()
	before := residentFile(t)
	for range 20 {
		if err := forgetStart(); err != nil {
			t.Error(err)
		}
	}
	if after := residentFile(t); after >= before {
		t.Errorf("%d kB of files are mapped, %d were before", after, before)
	}
	stop.Store(true)
	if n := <-sum; n%3 != 0 {
		t.Errorf("the sum is %d", n)
	}
}

// residentFile is how much of files the process has mapped, in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
