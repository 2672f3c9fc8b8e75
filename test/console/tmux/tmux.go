// Package tmux is a terminal for programs under test and on tape: what they draw
// can be read, keys can be pressed, and the size changed.
package tmux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Terminal is a tmux server of its own with one window.
type Terminal struct {
	socket string
	dir    string
}

// Open starts a command, as the shell takes it, in a terminal of that size.
func Open(w, h int, command string) (*Terminal, error) {
	dir, err := os.MkdirTemp("", "tmux-")
	if err != nil {
		return nil, err
	}
	t := &Terminal{socket: filepath.Join(dir, "s"), dir: dir}
	config := filepath.Join(dir, "conf")
	text := "set -g status off\nset -g default-terminal tmux-256color\nset -ga terminal-overrides ',*:Tc'\nset -g set-clipboard on\nset -sg escape-time 0\nset -g remain-on-exit on\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	_, err = t.run("-f", config, "new-session", "-d", "-s", "main", "-x", strconv.Itoa(w), "-y", strconv.Itoa(h), command)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return t, nil
}

func (t *Terminal) run(args ...string) (string, error) {
	cmd := exec.Command("tmux", append([]string{"-S", t.socket}, args...)...)
	cmd.Env = append(os.Environ(), "TMUX=", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tmux %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Close ends the terminal and what runs in it.
func (t *Terminal) Close() {
	_, _ = t.run("kill-server")
	_ = os.RemoveAll(t.dir)
}

// Press presses keys, one after the other, by tmux's names.
func (t *Terminal) Press(keys ...string) error {
	for _, k := range keys {
		if _, err := t.run("send-keys", "-t", "main", k); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // as two keys, and not as one paste
	}
	return nil
}

// Type types a text as it is.
func (t *Terminal) Type(text string) error {
	for _, r := range text {
		if _, err := t.run("send-keys", "-t", "main", "-l", string(r)); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// Screen is what is on the screen, as text.
func (t *Terminal) Screen() (string, error) { return t.run("capture-pane", "-t", "main", "-p") }

// Picture is what is on the screen, with its colours.
func (t *Terminal) Picture() (string, error) { return t.run("capture-pane", "-t", "main", "-p", "-e") }

// Resize changes the size.
func (t *Terminal) Resize(w, h int) error {
	_, err := t.run("resize-window", "-t", "main", "-x", strconv.Itoa(w), "-y", strconv.Itoa(h))
	return err
}

// Clipboard is what a program put there.
func (t *Terminal) Clipboard() (string, error) { return t.run("show-buffer") }

// Ask expands one of tmux's formats, such as "#{alternate_on}".
func (t *Terminal) Ask(format string) (string, error) {
	out, err := t.run("display-message", "-t", "main", "-p", format)
	return strings.TrimSpace(out), err
}
