// Package console is `tlsmcp console`: a sidecar and its Hub on one terminal.
//
// One model ([Model]) holds what is known and what is shown. It does no IO:
// whatever takes time is a command of Bubble Tea with a deadline, and what
// happens at the sidecar comes in by the pump, one batch in a tenth of a second
// however much there is. Screens and overlays are plain structs; what they draw
// is made by package widget from data and a width, so that every picture can be
// held to a golden file.
//
// Everything that can be done is one action in one list, which the keys, the
// footer, the help and the palette are made from. An action that cannot be done
// now says why.
package console

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/term"
	"github.com/muesli/termenv"

	_ "cyphers.ai/tlsmcp/console/quiet" // before Bubble Tea: see there
	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/ipc/controlclient"
)

// Command is a command of the command line that changes something and that the
// console offers as a form.
type Command struct {
	Path   string // "hub token create"
	Short  string
	Fields []Field
}

// Field is one value of a form.
type Field struct {
	Name     string // of the flag, or of the operand
	Help     string
	Value    string   // to begin with
	Choices  []string // one of these; none: any text
	Operand  bool     // it has no flag
	Switch   bool     // yes or no
	Required bool
}

// Options are what a console is started with.
type Options struct {
	Client   *controlclient.Client
	Token    func() (string, error) // the person's, for a Hub elsewhere
	Commands []Command
	// Run runs a command and returns what it printed.
	Run func(ctx context.Context, argv []string) (string, error)

	ReadOnly    bool
	NoAltScreen bool
	Theme       string // auto | one of widget.Themes
	ASCII       bool

	In, Out *os.File
}

// ErrNoTerminal is for a console that has no terminal to be drawn on.
var ErrNoTerminal = errors.New("the console needs a terminal, and this is none")

// Terminal tells whether a console can be drawn there.
func Terminal(in, out any, kind string) bool {
	for _, f := range []any{in, out} {
		t, ok := f.(term.File)
		if !ok || !term.IsTerminal(t.Fd()) {
			return false
		}
	}
	return kind != "dumb" && kind != ""
}

// Run shows the console until it is left or ctx is done.
func Run(ctx context.Context, o Options) error {
	if !Terminal(o.In, o.Out, os.Getenv("TERM")) {
		return ErrNoTerminal
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	profile := termenv.NewOutput(o.Out).EnvColorProfile()
	theme := o.Theme
	switch {
	case os.Getenv("NO_COLOR") != "":
		theme = "mono"
	case !slices.Contains(widget.Themes(), theme):
		theme = "dark"
		if !termenv.NewOutput(o.Out).HasDarkBackground() {
			theme = "light"
		}
	}
	remote := &daemon{Client: o.Client, token: o.Token, now: time.Now, commands: o.Commands, run: o.Run}
	defer o.Client.Close()
	out := &terminal{File: o.Out}
	m := New(Setup{
		Context: ctx, Remote: remote, Socket: o.Client.Socket(), Commands: o.Commands, ReadOnly: o.ReadOnly,
		Theme: theme, Profile: profile, ASCII: o.ASCII, Now: time.Now, Clipboard: out,
	})
	defer m.pump.wait()
	defer cancel() // before the pump is waited for
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(out), tea.WithFPS(30)}
	if !o.NoAltScreen {
		opts = append(opts, tea.WithAltScreen())
	}
	_, err := tea.NewProgram(m, opts...).Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil // asked to end, by a signal
	}
	return err
}

// terminal lets one write at a time: the program's pictures, and what goes to
// the clipboard.
type terminal struct {
	*os.File
	mu sync.Mutex
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.File.Write(p)
}

// Themes are the names of the themes.
func Themes() []string { return widget.Themes() }
