package filewatch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// start watches files and gives a channel with one value per callback. The
// first callback, the one at the start, is taken off it.
func start(t *testing.T, files ...string) <-chan struct{} {
	t.Helper()
	calls := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, slog.New(slog.DiscardHandler), files, func() { calls <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	want(t, calls, "the call at the start")
	return calls
}

func want(t *testing.T, calls <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-calls:
	// Well under the poll's five seconds: it must be the event that told.
	case <-time.After(2 * time.Second):
		t.Fatalf("no callback for: %s", what)
	}
}

// settle waits until callbacks that belong together are over.
func settle(calls <-chan struct{}) {
	for {
		select {
		case <-calls:
		case <-time.After(150 * time.Millisecond):
			return
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayToChangeAFileIsSeen(t *testing.T) {
	// Each case prepares a directory, and returns the watched path and the
	// steps; after each step a callback must come.
	cases := map[string]func(t *testing.T, dir string) (string, []func()){
		"a write in place": func(t *testing.T, dir string) (string, []func()) {
			f := filepath.Join(dir, "f")
			write(t, f, "1")
			return f, []func(){func() { write(t, f, "2") }, func() { write(t, f, "3") }}
		},
		"a rename over it, again and again": func(t *testing.T, dir string) (string, []func()) {
			f := filepath.Join(dir, "f")
			write(t, f, "1")
			swap := func() {
				write(t, f+".tmp", "2")
				must(t, os.Rename(f+".tmp", f))
			}
			return f, []func(){swap, swap, swap}
		},
		"deleted and made again": func(t *testing.T, dir string) (string, []func()) {
			f := filepath.Join(dir, "f")
			write(t, f, "1")
			return f, []func(){func() { must(t, os.Remove(f)) }, func() { write(t, f, "2") }, func() { write(t, f, "3") }}
		},
		"absent at first, and its directory too": func(t *testing.T, dir string) (string, []func()) {
			f := filepath.Join(dir, "a", "b", "f")
			return f, []func(){
				func() { must(t, os.MkdirAll(filepath.Dir(f), 0o700)) },
				func() { write(t, f, "1") },
				func() { write(t, f, "2") },
			}
		},
		"the directory is replaced": func(t *testing.T, dir string) (string, []func()) {
			f := filepath.Join(dir, "d", "f")
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
			write(t, f, "1")
			return f, []func(){
				func() {
					must(t, os.Mkdir(filepath.Join(dir, "new"), 0o700))
					write(t, filepath.Join(dir, "new", "f"), "2")
					must(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "old")))
					must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "d")))
				},
				func() { write(t, f, "3") },
			}
		},
		"a Kubernetes volume swaps ..data": func(t *testing.T, dir string) (string, []func()) {
			must(t, os.Mkdir(filepath.Join(dir, "..v1"), 0o700))
			write(t, filepath.Join(dir, "..v1", "f"), "1")
			must(t, os.Symlink("..v1", filepath.Join(dir, "..data")))
			must(t, os.Symlink(filepath.Join("..data", "f"), filepath.Join(dir, "f")))
			swap := func(from, to string) func() {
				return func() {
					must(t, os.Mkdir(filepath.Join(dir, to), 0o700))
					write(t, filepath.Join(dir, to, "f"), to)
					must(t, os.Symlink(to, filepath.Join(dir, "..data_tmp")))
					must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
					must(t, os.RemoveAll(filepath.Join(dir, from)))
				}
			}
			return filepath.Join(dir, "f"), []func(){swap("..v1", "..v2"), swap("..v2", "..v3")}
		},
		"the target of a link is written": func(t *testing.T, dir string) (string, []func()) {
			must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
			real := filepath.Join(dir, "real", "f")
			write(t, real, "1")
			must(t, os.Symlink(real, filepath.Join(dir, "link")))
			return filepath.Join(dir, "link"), []func(){
				func() { write(t, real, "2") },
				func() {
					write(t, real+".tmp", "3")
					must(t, os.Rename(real+".tmp", real))
				},
			}
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, steps := prepare(t, t.TempDir())
			calls := start(t, file)
			for i, step := range steps {
				settle(calls)
				step()
				want(t, calls, name+", step "+string(rune('1'+i)))
			}
		})
	}
}

func TestAChangeIsToldInUnder100ms(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	write(t, f, "1")
	calls := start(t, f)
	settle(calls)
	best := time.Hour // a busy machine delays some rounds; one must be fast
	for range 5 {
		began := time.Now()
		write(t, f, "2")
		want(t, calls, "a write")
		best = min(best, time.Since(began))
		settle(calls)
	}
	if best > 100*time.Millisecond {
		t.Errorf("the fastest of five callbacks took %v", best)
	}
}

func TestOtherFilesInTheDirectoryAreNotToldAbout(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "f")
	write(t, f, "1")
	calls := start(t, f)
	settle(calls)
	write(t, filepath.Join(dir, "other"), "x")
	must(t, os.Remove(filepath.Join(dir, "other")))
	select {
	case <-calls:
		t.Error("a callback for a file that is not watched")
	case <-time.After(200 * time.Millisecond):
	}
}

func TestAConstantWriterDoesNotHoldTheCallbackBack(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	write(t, f, "1")
	calls := start(t, f)
	settle(calls)
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		write(t, f, "2")
		time.Sleep(2 * time.Millisecond)
		if len(calls) > 0 {
			return
		}
	}
	t.Error("no callback while the file was written every 2 ms")
}

func TestThePollSeesWhatEventsMiss(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	write(t, f, "1")
	w := &watch{log: slog.New(slog.DiscardHandler), files: []string{f}, seen: make(map[string]stamp)}
	w.sync() // without a watcher: polling only
	if !w.changed() {
		t.Error("the first look must differ from no look")
	}
	if w.changed() {
		t.Error("a file that did not change was said to have")
	}
	write(t, f, "longer")
	if !w.changed() {
		t.Error("a change of size was missed")
	}
	must(t, os.Remove(f))
	if !w.changed() {
		t.Error("a deletion was missed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	called := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx, 10*time.Millisecond, func() { called <- struct{}{} })
	}()
	write(t, f, "again")
	want(t, called, "a new file, by the poll alone")
	cancel()
	<-done
}

func TestALoopOfLinksEnds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("b", filepath.Join(dir, "a")))
	must(t, os.Symlink("a", filepath.Join(dir, "b")))
	names, dirs := map[string]bool{}, map[string]bool{}
	walk(filepath.Join(dir, "a"), names, dirs)
	if !dirs[dir] || !names[filepath.Join(dir, "b")] {
		t.Errorf("walk saw %v in %v", names, dirs)
	}
}
