// Package filewatch tells when one of a few files changed, however it was
// changed: written in place, replaced by rename, deleted and made again, or
// swapped by the symlink dance of Kubernetes (tls.crt -> ..data/tls.crt, and
// ..data moves to a new directory).
//
// A watch on the file itself would follow the inode and go deaf at the first
// rename. So what is watched is every directory that takes part in finding the
// file: its path is walked one component at a time, links followed by hand, and
// each component is a name in a watched directory. When any of those names is
// made, moved or removed, or the file at the end is written, the callback runs
// and the path is walked again. That also covers a file that is not there yet
// and a directory that is replaced.
//
// Events get lost: a queue overflows, a network file system sends none, the
// kernel is out of watches. A slow poll that compares size, time and inode is
// behind it all, so a change is found within seconds even then.
package filewatch

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	// quiet is how long nothing more must happen before the callback runs: a
	// certificate and its key are written one after the other.
	quiet = 15 * time.Millisecond
	// longest bounds the wait when events do not stop.
	longest = 60 * time.Millisecond
	// pollEvery is the safety net; pollAlone is the poll when there are no
	// events at all.
	pollEvery = 5 * time.Second
	pollAlone = time.Second
	// maxLinks bounds the walk over symbolic links, as the kernel does.
	maxLinks = 40
)

// Watch calls onChange, from its own goroutine and never twice at once, soon
// after any of the files may have changed. It blocks until ctx is done.
//
// It also calls onChange once at the start, when the watches are in place: a
// change between the caller's first read and that moment would be lost
// otherwise. onChange may be called when nothing changed, and must compare for
// itself if it matters.
func Watch(ctx context.Context, log *slog.Logger, files []string, onChange func()) {
	w := &watch{log: log, seen: make(map[string]stamp)}
	for _, f := range files {
		abs, err := filepath.Abs(f)
		if err != nil {
			abs = filepath.Clean(f)
		}
		w.files = append(w.files, abs)
	}
	interval := pollEvery
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("no file events, polling instead", event.KeyError, err)
		interval = pollAlone
	} else {
		defer w.fs.Close()
	}
	w.sync()
	w.changed()
	onChange()
	w.run(ctx, interval, onChange)
}

// watch is the state of one call of Watch, touched by its goroutine only.
type watch struct {
	log   *slog.Logger
	fs    *fsnotify.Watcher // nil: polling only
	files []string
	names map[string]bool  // components of the paths; true for the file at the end
	seen  map[string]stamp // as of the last look
}

func (w *watch) run(ctx context.Context, interval time.Duration, onChange func()) {
	var events chan fsnotify.Event
	var errs chan error
	if w.fs != nil {
		events, errs = w.fs.Events, w.fs.Errors
	}
	poll := time.NewTicker(interval)
	defer poll.Stop()
	var due <-chan time.Time // nil: nothing pending
	var first time.Time      // of the events that are pending
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if !w.relevant(e) {
				continue
			}
			now := time.Now()
			if due == nil {
				first = now
			}
			due = time.After(max(0, min(quiet, longest-now.Sub(first))))
		case err := <-errs:
			// An overflow: what was lost is unknown, so look again.
			w.log.Warn("file events were lost, looking again", event.KeyError, err)
			if due == nil {
				first, due = time.Now(), time.After(quiet)
			}
		case <-due:
			due = nil
			w.sync()
			w.changed()
			onChange()
		case <-poll.C:
			w.sync()
			if w.changed() {
				onChange()
			}
		}
	}
}

// relevant tells whether an event is about a name on the way to a file. For a
// directory on the way only its coming and going counts; for the file itself
// everything does, a change of mode too, which may make it readable.
func (w *watch) relevant(e fsnotify.Event) bool {
	last, ok := w.names[e.Name]
	if !ok {
		return false
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) || e.Has(fsnotify.Create) {
		// A directory of this name that is watched may be another one now.
		// Remove fails when it is not watched, which is as good.
		_ = w.fs.Remove(e.Name)
		return true
	}
	return last
}

// sync walks the paths again and watches what has to be watched now.
func (w *watch) sync() {
	w.names = make(map[string]bool)
	dirs := make(map[string]bool)
	for _, f := range w.files {
		walk(f, w.names, dirs)
	}
	if w.fs == nil {
		return
	}
	for _, old := range w.fs.WatchList() {
		if !dirs[old] {
			_ = w.fs.Remove(old) // it may have gone by itself
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := w.fs.Add(dir); err != nil {
			// Unreadable or just gone; the poll sees what happens behind it.
			w.log.Debug("watch directory", event.KeyFile, dir, event.KeyError, err)
		}
	}
}

// walk resolves path component by component, as the kernel would, and notes
// each component as a name and the directory that it was looked up in. Both are
// free of symbolic links. It stops at the first component that is missing.
func walk(path string, names, dirs map[string]bool) {
	cur := "/"
	rest := split(path)
	links := 0
	for len(rest) > 0 {
		comp := rest[0]
		rest = rest[1:]
		if comp == ".." {
			cur = filepath.Dir(cur)
			continue
		}
		name := filepath.Join(cur, comp)
		dirs[cur] = true
		names[name] = names[name] || len(rest) == 0
		target, err := os.Readlink(name)
		if err != nil {
			// Not a link. If it is missing as well, what follows is missing
			// too, and its directory cannot be watched yet.
			if _, err := os.Lstat(name); err != nil {
				return
			}
			cur = name
			continue
		}
		if links++; links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			cur = "/"
		}
		rest = append(split(target), rest...)
	}
}

// split cuts a path into its components; "." and empty ones fall out.
func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// stamp is what a file looked like.
type stamp struct {
	info os.FileInfo // nil: absent or unreadable
}

func (a stamp) same(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	return os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() &&
		a.info.ModTime().Equal(b.info.ModTime()) && a.info.Mode() == b.info.Mode()
}

// changed looks at every file and tells whether any differs from the last look.
func (w *watch) changed() bool {
	any := false
	for _, f := range w.files {
		var now stamp
		if info, err := os.Stat(f); err == nil {
			now.info = info
		}
		if !now.same(w.seen[f]) {
			any = true
		}
		w.seen[f] = now
	}
	return any
}
