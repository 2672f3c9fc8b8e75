package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bench is a log that is being written.
type bench struct {
	*Log
	t    *testing.T
	dir  string
	stop func()
	held []Check
}

func start(t *testing.T, dir string, change func(*Options)) *bench {
	t.Helper()
	b := &bench{t: t, dir: dir}
	o := Options{Dir: dir, Checkpoint: func(c Check, _ time.Time) { b.held = append(b.held, c) }}
	if change != nil {
		change(&o)
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	b.Log = l
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	b.stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(b.stop)
	return b
}

func (b *bench) write(n int) {
	b.t.Helper()
	for i := range n - 1 {
		b.Append(entry(i))
	}
	if err := b.Write(b.t.Context(), entry(n-1)); err != nil {
		b.t.Fatal(err)
	}
}

func entry(i int) Record {
	return Record{Kind: Accepted, Identity: fmt.Sprintf("spiffe://a/service/s%d", i%3), Remote: "10.0.0.1:1", Connection: uint64(i + 1), TLSVersion: "TLS 1.3"}
}

func verified(t *testing.T, dir string, o VerifyOptions) *Report {
	t.Helper()
	r, err := Verify(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustVerify(t *testing.T, dir string, o VerifyOptions) *Report {
	t.Helper()
	r := verified(t, dir, o)
	if !r.OK() {
		t.Fatalf("the log has faults: %v", r.Faults)
	}
	return r
}

// written makes a log of some entries and returns its one file.
func written(t *testing.T, n int) (dir, file string, held []Check) {
	t.Helper()
	dir = t.TempDir()
	b := start(t, dir, nil)
	b.write(n)
	b.stop()
	all, err := segments(dir)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return dir, all[0].path, b.held
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestALogVerifiesAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		b := start(t, dir, nil)
		b.write(10)
		if st := b.State(); st.Err != nil || st.Lost != 0 || st.Sequence == 0 {
			t.Errorf("round %d: %+v", round, st)
		}
		b.stop()
	}
	r := mustVerify(t, dir, VerifyOptions{})
	// Each round a checkpoint, ten entries, the end, and a checkpoint.
	if r.Entries != 3*13 || r.First != 1 || r.Last != r.Entries || r.Checkpoints != 6 || r.Unsigned != 0 || len(r.Keys) != 1 {
		t.Errorf("it says %+v", r)
	}
}

func TestOneProcessWritesAtATime(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	if _, err := Open(Options{Dir: b.dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
}

func TestEveryChangeIsFound(t *testing.T) {
	dir, file, held := written(t, 12)
	data := read(t, file)
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:len(lines)-1]
	if len(lines) != 15 {
		t.Fatalf("%d lines", len(lines))
	}
	bad := func(name string, o VerifyOptions, changed [][]byte) {
		t.Helper()
		write(t, file, bytes.Join(changed, nil))
		if r, err := Verify(dir, o); err == nil && r.OK() {
			t.Errorf("%s is not found", name)
		}
	}
	for i := range lines {
		without := slices.Delete(slices.Clone(lines), i, i+1)
		if i == len(lines)-1 { // the end: only who holds a checkpoint can tell
			bad("the loss of the end", VerifyOptions{Held: held}, without[:len(without)-1])
			break
		}
		bad(fmt.Sprintf("the loss of line %d", i+1), VerifyOptions{}, without)
		bad(fmt.Sprintf("line %d twice", i+1), VerifyOptions{}, slices.Insert(slices.Clone(lines), i, lines[i]))
		if i+2 < len(lines) {
			moved := slices.Clone(lines)
			moved[i], moved[i+1] = moved[i+1], moved[i]
			bad(fmt.Sprintf("lines %d and %d in turn", i+1, i+2), VerifyOptions{}, moved)
		}
	}
	// The last checkpoint is vouched for by nothing but itself: without it the
	// entry before it is the end, which only who holds the checkpoint can tell.
	signed := len(data) - len(lines[len(lines)-1]) - 1
	for at := range data[:len(data)-1] {
		o := VerifyOptions{}
		if at >= signed {
			o.Held = held
		}
		changed := bytes.Clone(data)
		changed[at] ^= 1
		write(t, file, changed)
		// What comes after the last checkpoint is shown as signed by nobody.
		if r, err := Verify(dir, o); err == nil && r.OK() && (at < signed || r.Unsigned == 0) {
			t.Fatalf("another byte at %d is not found", at)
		}
	}
	write(t, file, data)
	mustVerify(t, dir, VerifyOptions{Held: held})
}

func TestALogThatWasWrittenAnewIsFoundByItsCheckpoints(t *testing.T) {
	dir, _, held := written(t, 12)
	other, file, _ := written(t, 12)
	r := verified(t, other, VerifyOptions{Held: held})
	if r.OK() {
		t.Error("another log passes for it")
	}
	mustVerify(t, dir, VerifyOptions{Held: held})
	// Even one with the same name and key, as somebody on the host can make it.
	for _, name := range []string{keyFile, logFile} {
		write(t, filepath.Join(other, name), read(t, filepath.Join(dir, name)))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b := start(t, other, nil)
	b.write(12)
	b.stop()
	mustVerify(t, other, VerifyOptions{})
	if r := verified(t, other, VerifyOptions{Held: held}); r.OK() {
		t.Error("a log that was written anew passes")
	}
	c := held[0]
	if r := mustVerify(t, dir, VerifyOptions{Key: c.KeyID()}); r.Keys[0] != c.KeyID() {
		t.Error(r.Keys)
	}
	if r := verified(t, dir, VerifyOptions{Key: "0000000000000000"}); r.OK() {
		t.Error("another key passes")
	}
}

func TestACrashAtAnyByteLeavesALogThatGoesOn(t *testing.T) {
	_, file, _ := written(t, 6)
	data := read(t, file)
	every := 7 // bytes; the ends of lines are tried all
	if testing.Short() {
		every = 53
	} else if os.Getenv("TLSMCP_KILLS") != "" { // the long form
		every = 1
	}
	for at := range data {
		if at%every != 0 && data[at] != '\n' && (at == 0 || data[at-1] != '\n') {
			continue
		}
		dir := t.TempDir()
		for _, name := range []string{keyFile, logFile} {
			write(t, filepath.Join(dir, name), read(t, filepath.Join(filepath.Dir(file), name)))
		}
		torn := filepath.Join(dir, filepath.Base(file))
		write(t, torn, data[:at])
		whole := bytes.Count(data[:at], []byte("\n"))
		l, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("cut at byte %d: %v", at, err)
		}
		if l.w.chain.sequence != uint64(whole) {
			t.Fatalf("cut at byte %d: it goes on after %d, and %d are whole", at, l.w.chain.sequence, whole)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		r := mustVerify(t, dir, VerifyOptions{})
		found, _, err := Search(dir, Query{Kind: string(Recovered)})
		if err != nil {
			t.Fatal(err)
		}
		if was := at > 0 && data[at-1] != '\n'; was != (len(found) == 1) {
			t.Fatalf("cut at byte %d: %d entries of it, in %+v", at, len(found), r)
		}
	}
}

func TestRotationAndExpiry(t *testing.T) {
	dir := t.TempDir()
	const size = 256 << 10
	b := start(t, dir, func(o *Options) { o.MaxSize = size })
	for range 40 {
		b.write(50)
	}
	b.stop()
	r := mustVerify(t, dir, VerifyOptions{})
	all, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, s := range all {
		total += s.size
	}
	if total > size || r.First == 1 || len(all) < 3 {
		t.Errorf("%d bytes in %d files, from entry %d", total, len(all), r.First)
	}
	removed, _, err := Search(dir, Query{Kind: string(Removed)})
	if err != nil || len(removed) == 0 || removed[0].Count == 0 {
		t.Errorf("what was removed is not recorded: %v, %v", removed, err)
	}
	// A checkpoint from before what was removed is no fault.
	mustVerify(t, dir, VerifyOptions{Held: b.held})
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	b := start(t, dir, func(o *Options) {
		o.MaxSize, o.Keep, o.Now = 1<<30, time.Hour, func() time.Time { return now }
	})
	b.write(3)
	b.stop()
	all, _ := segments(dir)
	old := now.Add(-2 * time.Hour)
	if err := os.Chtimes(all[0].path, old, old); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: dir, Keep: time.Hour, MaxSize: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.rotate(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.w.file.Close(), l.lock.Close()); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, dir, VerifyOptions{}); r.First != 7 || r.Files != 1 {
		t.Errorf("it begins at %d, in %d files", r.First, r.Files)
	}
}

// TestASettledLogHasWhatHappenedBefore: who asks after the fact finds it.
func TestASettledLogHasWhatHappenedBefore(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	for n := range 20 {
		b.Append(entry(n))
		if err := b.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		st := b.State()
		found, _, err := Search(b.dir, Query{Limit: 100, Until: st.Sequence})
		if err != nil || st.Waiting != 0 || len(found) < n+1 {
			t.Fatalf("after %d entries %d are found, %d wait, %v", n+1, len(found), st.Waiting, err)
		}
	}
}

func TestSearch(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir, func(o *Options) { o.MaxSize = 64 << 10 })
	for i := range 90 {
		r := entry(i)
		r.Time = Time{time.Unix(int64(1_800_000_000+i), 0)}
		if i%10 == 0 {
			r.Kind, r.Outcome = Refused, "revoked"
		}
		b.Append(r)
	}
	b.write(1)
	b.stop()
	conns := func(q Query) (out []uint64) {
		t.Helper()
		for {
			found, next, err := Search(dir, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range found {
				out = append(out, r.Connection)
			}
			if next == 0 {
				return out
			}
			q.From = next
		}
	}
	for name, tt := range map[string]struct {
		q    Query
		want string
	}{
		"newest first, by pages":  {Query{Kind: "refused", Limit: 2}, "[81 71 61 51 41 31 21 11 1]"},
		"oldest first, by pages":  {Query{Kind: "refused", Limit: 4, OldestFirst: true}, "[1 11 21 31 41 51 61 71 81]"},
		"by outcome and identity": {Query{Outcome: "revoked", Identity: "spiffe://a/service/s0"}, "[61 31 1]"},
		"by time":                 {Query{Span: Span{time.Unix(1_800_000_003, 0), time.Unix(1_800_000_006, 0)}}, "[6 5]"},
		"nothing":                 {Query{Identity: "nobody"}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprint(conns(tt.q)); got != tt.want {
				t.Errorf("found %s, want %s", got, tt.want)
			}
		})
	}
	n := 0
	if err := Export(dir, Span{time.Unix(1_800_000_000, 0), time.Unix(1_800_000_005, 0)}, 0, func([]byte) error { n++; return nil }); err != nil || n != 5 {
		t.Errorf("exported %d, %v", n, err)
	}
}

// TestAFullDisk uses a real one: a file system of 64 KiB.
func TestAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system; CI is root")
	}
	for name, refuse := range map[string]bool{"refuse": true, "drop": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Skip("this machine does not let root mount:", err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			b := start(t, filepath.Join(dir, "audit"), func(o *Options) { o.Refuse = refuse })
			b.write(5)
			ballast := filepath.Join(dir, "ballast")
			write(t, ballast, nil)
			f, err := os.OpenFile(ballast, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, 512))
			}
			_ = f.Close()
			for range 40 { // more than fits in what is left of the last block
				b.Append(entry(1))
			}
			werr := b.Write(t.Context(), entry(1))
			if !errors.Is(werr, syscall.ENOSPC) {
				t.Fatalf("on a full disk it says %v", werr)
			}
			if got := b.Accepting(); (got != nil) != refuse {
				t.Errorf("accepting: %v", got)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(30 * time.Second)
			for b.State().Err != nil {
				if time.Now().After(deadline) {
					t.Fatal("it does not go on")
				}
				time.Sleep(10 * time.Millisecond)
			}
			b.write(1)
			b.stop()
			r := mustVerify(t, b.dir, VerifyOptions{Held: b.held})
			if r.Entries < 5+41+1 {
				t.Errorf("of what waited only %d are there", r.Entries)
			}
		})
	}
}

func TestWhatDoesNotFitIsCountedAndRecorded(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	const extra = 7
	for i := range queueMost + extra { // nobody writes yet
		l.Append(entry(i))
	}
	if st := l.State(); st.Lost != extra {
		t.Errorf("lost: %d", st.Lost)
	}
	if err := l.Write(t.Context(), entry(1)); err == nil {
		t.Error("an entry that does not fit is not refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	found, _, err := Search(l.o.Dir, Query{Kind: string(Lost)})
	if err != nil || len(found) != 1 || found[0].Count != extra+2 { // and the two after the loop: Write's and the end's
		t.Errorf("recorded: %v, %v", found, err)
	}
	mustVerify(t, l.o.Dir, VerifyOptions{})
}

// killJob is what this test binary is when TestKills started it.
const killJob = "TLSMCP_AUDIT_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killJob); dir != "" {
		os.Exit(writeForEver(dir))
	}
	os.Exit(m.Run())
}

// writeForEver writes entries and prints the number of each that is on disk.
func writeForEver(dir string) int {
	l, err := Open(Options{Dir: dir, MaxSize: 1 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() { _ = l.Run(context.Background()) }()
	for i := 0; ; i++ {
		for range 20 {
			l.Append(entry(i))
		}
		r := entry(i)
		r.Detail = "acknowledged"
		r.Count = uint64(i)
		if err := l.Write(context.Background(), r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(l.State().Sequence)
	}
}

// TestKills kills the writer again and again: what it said was on disk is there,
// and the log verifies and goes on. TLSMCP_KILLS says how often.
func TestKills(t *testing.T) {
	kills := 8
	if n, err := strconv.Atoi(os.Getenv("TLSMCP_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killJob+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan()
		said := lines.Text()
		after := time.AfterFunc(time.Duration(rand.Int64N(int64(300*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
			said = lines.Text()
		}
		after.Stop()
		_ = cmd.Wait() // it was killed
		durable, err := strconv.ParseUint(said, 10, 64)
		if err != nil {
			t.Fatalf("the writer said %q", said)
		}
		if r := mustVerify(t, dir, VerifyOptions{}); r.Last < durable {
			t.Fatalf("entry %d was said to be on disk, and the log ends at %d", durable, r.Last)
		}
	}
}

func FuzzParse(f *testing.F) {
	r := entry(3)
	r.Sequence = 4
	r.Time = Time{time.Unix(1_800_000_000, 0)}
	good, err := r.line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"seq":1,"prev":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, err := parseHead(line)
		if err != nil {
			return
		}
		// What the quick reader takes and the whole one too, both read the same.
		whole, err := parseLine(line)
		if err != nil {
			return
		}
		again, err := whole.line()
		if err != nil || !bytes.Equal(again, line) {
			return // it was not written by this program
		}
		if whole.Sequence != h.sequence || whole.Prev != h.prev || string(whole.Kind) != string(h.kind) {
			t.Errorf("%s is read as %d %s %s", line, h.sequence, h.prev, h.kind)
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("{\"seq\":1,\"prev\":\"" + strings.Repeat("0", 64) + "\",\"time\":\"2026-01-01T00:00:00.000000Z\",\"kind\":\"checkpoint\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		write(t, segmentPath(dir, 1), data)
		r, err := Verify(dir, VerifyOptions{})
		if err == nil && r.OK() && bytes.Count(data, []byte("\n")) > 0 && r.Checkpoints == 0 {
			t.Errorf("a log that nobody signed is good: %q", data)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	l, err := Open(Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	const n = 1_000_000
	batch := make([]Record, 1000)
	for i := range batch {
		batch[i] = entry(i)
		batch[i].Time = Time{time.Now()}
	}
	for range n / len(batch) {
		if err := l.write(batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		if r, err := Verify(dir, VerifyOptions{}); err != nil || !r.OK() {
			b.Fatal(err, r)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/million")
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	r := entry(1)
	for b.Loop() {
		l.Append(r)
	}
	cancel()
	<-done
}

func TestVerifySaysHowFarItIsAndCanBeStopped(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]Record, 1000)
	for i := range batch {
		batch[i] = entry(i)
		batch[i].Detail = strings.Repeat("x", 1000)
	}
	for range 12 {
		if err := l.write(batch); err != nil {
			t.Fatal(err)
		}
	}
	var seen []uint64
	r, err := Verify(dir, VerifyOptions{Progress: func(done, total uint64) error {
		if done > total || total < 12<<20 {
			t.Errorf("%d of %d", done, total)
		}
		seen = append(seen, done)
		return nil
	}})
	if err != nil || !r.OK() || len(seen) < 2 || !slices.IsSorted(seen) {
		t.Errorf("%v, %v, told %v", r, err, seen)
	}
	enough := errors.New("enough")
	if _, err := Verify(dir, VerifyOptions{Progress: func(uint64, uint64) error { return enough }}); !errors.Is(err, enough) {
		t.Errorf("stopped with %v", err)
	}
}

// TestABurstTakesNoRoomAfterwards: the queue that a burst made long is let go, and
// what was in it is written.
func TestABurstTakesNoRoomAfterwards(t *testing.T) {
	room := func(b *bench) int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return cap(b.queue)
	}
	dir := t.TempDir()
	b := start(t, dir, nil)
	const n = 6000
	for i := range n {
		b.Append(entry(i))
	}
	if got := room(b); got <= queueKept {
		t.Fatalf("%d entries at once wait in a queue for %d", n, got)
	}
	b.write(1)
	b.write(1)
	if got := room(b); got > queueKept {
		t.Errorf("with nothing to write there is room for %d entries, want at most %d", got, queueKept)
	}
	b.stop()
	if r := verified(t, dir, VerifyOptions{}); !r.OK() || r.Last < n+2 {
		t.Errorf("%d entries, %v", r.Last, r.Faults)
	}
}
