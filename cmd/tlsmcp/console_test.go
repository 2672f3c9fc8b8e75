package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/console"
)

// reading are the commands that the palette need not have: they change nothing
// that others see, or go on until they are stopped, or make what runs by itself.
// A new command that changes something needs no line here: it is offered by
// itself, and this test sees that it is.
func reading() []string {
	return []string{
		"status", "watch", "conns", "agents", "score", "scan", "version", "console", "quickstart", "run",
		"audit tail", "audit verify", "audit export", "mcp", "mcp serve", "mcp connect", "mcp install", "mcp tools", "config check", "config show",
		"cert list", "cert show", "hub token list", "hub policy list", "hub policy get", "hub fleet", "hub ca root", "hub webhook list",
	}
}

// TestRulePaletteHasEveryChange walks the command tree: whatever the command line
// can change, the console's palette finds by the name of the command.
func TestRulePaletteHasEveryChange(t *testing.T) {
	root := newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}})
	offered := console.Offers(consoleCommands(root))
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := commandName(cmd)
		leaf := cmd.Runnable() && !onlyHolds(cmd) && !cmd.Hidden && !strings.HasPrefix(name, "completion") && name != "help"
		if leaf && !slices.Contains(reading(), name) {
			seen++
			if !slices.Contains(offered, name) {
				t.Errorf("the console's palette has no %q: if it changes nothing, add it to reading() here; otherwise take it out of looking() in console.go", name)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if seen < 15 {
		t.Errorf("only %d changing commands were found: the test looks in the wrong place", seen)
	}
}

// TestRuleConsoleFormsAreTheCommands holds the forms to the operands and flags of
// the commands that they fill in.
func TestRuleConsoleFormsAreTheCommands(t *testing.T) {
	root := newRoot(stdio{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}})
	forms := map[string]console.Command{}
	for _, c := range consoleCommands(root) {
		forms[c.Path] = c
		if c.Short == "" {
			t.Errorf("%s says nothing", c.Path)
		}
	}
	names := func(path string) string {
		var all []string
		for _, f := range forms[path].Fields {
			name := f.Name
			if f.Operand {
				name = strings.ToUpper(name)
			}
			if f.Required {
				name += "!"
			}
			all = append(all, name)
		}
		return strings.Join(all, " ")
	}
	for path, want := range map[string]string{
		"hub join":           "TOKEN! config",
		"hub fleet remove":   "NODE!",
		"hub webhook create": "URL! topic",
		"hub ca rotate":      "root-key",
	} {
		if got := names(path); got != want {
			t.Errorf("%s asks for %q, not %q", path, got, want)
		}
	}
}

func TestConsoleRefusesWhatIsNoTerminal(t *testing.T) {
	var out, errs bytes.Buffer
	code := execute(t.Context(), []string{"console"}, stdio{strings.NewReader(""), &out, &errs})
	if code != exitUsage || !strings.Contains(errs.String(), "needs a terminal") || !strings.Contains(errs.String(), "tlsmcp watch") || out.Len() > 0 {
		t.Errorf("exit %d, it says %q and draws %q", code, errs.String(), out.String())
	}
}

func TestConsoleRunsCommandsAsTheCommandLineDoes(t *testing.T) {
	d := &daemonConn{socket: t.TempDir() + "/none.sock"}
	_, err := runForConsole(t.Context(), d, []string{"hub", "token", "create", "--role=viewer", "--"})
	p, ok := err.(*console.Problem)
	if !ok || !strings.Contains(p.Text, "none.sock") || p.Hint == "" {
		t.Errorf("a command without a daemon fails with %#v", err)
	}
	if _, err := runForConsole(t.Context(), d, []string{"hub", "fleet", "remove", "--"}); err == nil || !strings.Contains(err.Error(), "takes the node's id") {
		t.Errorf("a command without its operand fails with %v", err)
	}
	if out, err := runForConsole(t.Context(), d, []string{"version", "--"}); err != nil || !strings.Contains(out, "tlsmcp") {
		t.Errorf("a command that needs no daemon: %q, %v", out, err)
	}
}
