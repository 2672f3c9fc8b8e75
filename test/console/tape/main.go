// Command tape records the console: it sets up a Hub, a sidecar and clients, works
// the console in a terminal as a person would, and writes what was on the screen
// as one animated SVG. ./task demo runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/test/console/stage"
	"cyphers.ai/tlsmcp/test/console/tmux"
)

const (
	width, height = 100, 30
	frameTime     = 100 * time.Millisecond
)

func main() {
	out := flag.String("out", "docs/console.svg", "the `FILE` to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := record(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "tape:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp("", "tlsmcp-tape-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir, "cyphers.ai/tlsmcp/cmd/...")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, text)
	}
	allowed := []string{"web-1", "web-2", "api", "batch", "reports", "claude-desktop"}
	s, err := stage.Start(ctx, stage.Options{Dir: dir, Bin: dir, Service: "edge-01"}, allowed...)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	var crowd sync.WaitGroup
	defer crowd.Wait()
	defer cancel()
	if err := traffic(ctx, s, &crowd); err != nil {
		return err
	}
	term, err := tmux.Open(width, height, "COLORTERM=truecolor "+filepath.Join(dir, "tlsmcp")+" console --theme dark --socket "+s.Socket)
	if err != nil {
		return err
	}
	defer term.Close()
	time.Sleep(4 * time.Second) // until there is something to see
	frames, err := film(term)
	if err != nil {
		return err
	}
	return os.WriteFile(out, []byte(svg(frames)), 0o644)
}

// traffic has clients come and go until ctx is done.
func traffic(ctx context.Context, s *stage.Stage, crowd *sync.WaitGroup) error {
	var visitors []*stage.Client
	for _, c := range []struct {
		typ, name, ttl string
		open           int // connections that stay
		visits         int // of the others, how often it comes
	}{
		{"client", "batch", "90m", 18, 0}, {"client", "web-1", "7d", 12, 3}, {"client", "web-2", "7d", 9, 3}, {"client", "api", "24h", 31, 4}, {"agent", "claude-desktop", "12h", 2, 1},
		{"agent", "reports", "8h", 0, 1}, {"client", "mallory", "24h", 0, 1}, {"server", "search", "30d", 0, 0}, {"client", "billing", "20d", 0, 0}, {"client", "payments", "30d", 0, 0},
	} {
		client, err := s.Issue(ctx, c.typ, c.name, c.ttl)
		if err != nil {
			return err
		}
		for range c.open {
			conn, err := client.Dial()
			if err != nil {
				return err
			}
			crowd.Go(func() { stay(ctx, client, conn) })
		}
		for range c.visits {
			visitors = append(visitors, client)
		}
	}
	crowd.Go(func() {
		for ctx.Err() == nil {
			_ = visitors[rand.N(len(visitors))].Visit()
			time.Sleep(50*time.Millisecond + rand.N(350*time.Millisecond))
		}
	})
	return nil
}

// stay holds a connection, calls now and then, and comes again when it is cut.
func stay(ctx context.Context, c *stage.Client, conn net.Conn) {
	for ctx.Err() == nil {
		time.Sleep(time.Second + rand.N(time.Second))
		if stage.Call(conn) != nil {
			_ = conn.Close()
			time.Sleep(rand.N(3 * time.Second))
			if again, err := c.Dial(); err == nil {
				conn = again
			}
		}
	}
	_ = conn.Close()
}

// scene is keys that are pressed, or text that is typed, and how long one then
// looks.
type scene struct {
	keys []string
	text string
	look time.Duration
}

func scenes() []scene {
	const moment, long = 900 * time.Millisecond, 2500 * time.Millisecond
	return []scene{
		{look: long}, {keys: []string{"2"}, look: moment}, {keys: []string{"/"}, text: "batch", look: moment}, {keys: []string{"Enter"}, look: moment / 2},
		{keys: []string{"x"}, look: long}, {keys: []string{"Right"}, look: moment}, {keys: []string{"y"}, look: long}, {keys: []string{"Escape", "Escape", "3"}, look: long},
		{keys: []string{"5"}, look: long}, {keys: []string{"j"}, look: moment}, {keys: []string{"Enter"}, look: long}, {keys: []string{"Escape", ":"}, text: "hub tok", look: long},
		{keys: []string{"Escape", "1"}, look: long},
	}
}

// frame is what was on the screen, and how long.
type frame struct {
	picture string
	lasts   time.Duration
}

// film plays the scenes and takes a picture in each tenth of a second.
func film(term *tmux.Terminal) ([]frame, error) {
	var frames []frame
	shoot := func() error {
		picture, err := term.Picture()
		if err != nil {
			return err
		}
		if n := len(frames); n > 0 && frames[n-1].picture == picture {
			frames[n-1].lasts += frameTime
		} else {
			frames = append(frames, frame{picture, frameTime})
		}
		return nil
	}
	look := func(d time.Duration) error {
		for end := time.Now().Add(d); time.Now().Before(end); {
			next := time.Now().Add(frameTime)
			if err := shoot(); err != nil {
				return err
			}
			time.Sleep(time.Until(next))
		}
		return nil
	}
	for _, s := range scenes() {
		if err := term.Press(s.keys...); err != nil {
			return nil, err
		}
		for _, r := range s.text {
			if err := term.Type(string(r)); err != nil {
				return nil, err
			}
			if err := look(2 * frameTime); err != nil {
				return nil, err
			}
		}
		if err := look(s.look); err != nil {
			return nil, err
		}
	}
	return frames, nil
}
