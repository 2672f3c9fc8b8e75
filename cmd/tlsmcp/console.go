package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cyphers.ai/tlsmcp/console"
)

// newConsole is `tlsmcp console`.
func newConsole(s stdio) *cobra.Command {
	d := new(daemonConn)
	h := new(hubConn)
	var o console.Options
	cmd := &cobra.Command{Use: "console", Short: "Watch and work the sidecar and its Hub on one screen", Args: atMost(0),
		Long: `console shows the sidecar, the certificates of its Hub, who connects and who is
refused, MCP agents, the score and what was changed, as it happens; and does what
the command line can change, with one key or by name (:). ? shows the keys.

Without a terminal there is nothing to draw on: tlsmcp watch is for scripts and
screen readers.`,
		Example: `  tlsmcp console
  tlsmcp console --readonly --theme light`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, _ := s.in.(*os.File)
			out, _ := s.out.(*os.File)
			if in == nil || out == nil || !console.Terminal(in, out, os.Getenv("TERM")) {
				return &failure{exitUsage, console.ErrNoTerminal, "tlsmcp watch shows the same events as lines, tlsmcp status the state; --json for programs"}
			}
			if !slices.Contains(consoleThemes(), o.Theme) {
				return usageError(cmd, "there is no theme %q: %s", o.Theme, strings.Join(consoleThemes(), ", "))
			}
			h.daemon = *d
			o.In, o.Out, o.Client, o.Token = in, out, d.connect(), h.token
			root := cmd.Root()
			o.Commands = consoleCommands(root)
			o.Run = func(ctx context.Context, argv []string) (string, error) { return runForConsole(ctx, d, argv) }
			return console.Run(cmd.Context(), o)
		}}
	f := cmd.Flags()
	f.StringVar(&d.socket, "socket", os.Getenv("TLSMCP_SOCKET"), "`PATH` of the sidecar's control socket (TLSMCP_SOCKET)")
	f.StringVar(&d.instance, "instance", "", "the sidecar tlsmcpd@`NAME` of this host")
	f.StringVar(&h.tokenFile, "token-file", os.Getenv("TLSMCP_TOKEN_FILE"), "file with a bearer token for a Hub elsewhere (TLSMCP_TOKEN_FILE; TLSMCP_TOKEN holds the token itself)")
	f.BoolVar(&o.ReadOnly, "readonly", false, "look, and change nothing")
	f.BoolVar(&o.NoAltScreen, "no-alt-screen", false, "leave the last picture on the terminal")
	f.StringVar(&o.Theme, "theme", "auto", strings.Join(consoleThemes(), ", ")+"; NO_COLOR means mono")
	f.BoolVar(&o.ASCII, "ascii", false, "draw with ASCII characters alone")
	cmd.MarkFlagsMutuallyExclusive("socket", "instance")
	return cmd
}

func consoleThemes() []string { return append([]string{"auto"}, console.Themes()...) }

// looking are the commands that change nothing outside this process, or that
// have no place in a console. Every other one is offered there.
func looking() []string {
	return []string{
		"run", "status", "watch", "conns", "agents", "score", "console", "quickstart", "version", "completion", "help",
		"mcp", "mcp serve", "mcp connect", "mcp install", "scan",
		"audit tail", "audit verify", "audit export", "mcp tools", "config check", "config show",
		"cert list", "cert show", "hub token list", "hub policy list", "hub policy get", "hub fleet", "hub ca root", "hub webhook list",
	}
}

// consoleCommands makes forms of the commands that change something: a field for
// each operand and each flag of their own.
func consoleCommands(root *cobra.Command) []console.Command {
	var all []console.Command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := commandName(cmd)
		if changes(cmd) {
			c := console.Command{Path: path, Short: cmd.Short, Fields: operands(cmd)}
			cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && !f.Hidden {
					_, usage := pflag.UnquoteUsage(f)
					c.Fields = append(c.Fields, console.Field{Name: f.Name, Help: usage, Switch: f.Value.Type() == "bool", Value: plainDefault(f)})
				}
			})
			all = append(all, c)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return all
}

// commandName is a command without the program: "hub token create".
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// changes tells whether a command does something, and something that changes
// what others see.
func changes(cmd *cobra.Command) bool {
	return cmd.Runnable() && !onlyHolds(cmd) && !cmd.Hidden && !slices.ContainsFunc(looking(), func(l string) bool {
		return commandName(cmd) == l || l == "completion" && strings.HasPrefix(commandName(cmd), "completion ")
	})
}

// onlyHolds tells whether a command is made by group.
func onlyHolds(cmd *cobra.Command) bool {
	return cmd == cmd.Root() || cmd.HasSubCommands() && cmd.Annotations[isGroup] != ""
}

func plainDefault(f *pflag.Flag) string {
	if f.DefValue == "[]" || f.DefValue == "false" || f.DefValue == "0" {
		return ""
	}
	return f.DefValue
}

// operands are the words in capitals of a command's use line; those in brackets
// may be left out.
func operands(cmd *cobra.Command) []console.Field {
	var all []console.Field
	for _, word := range strings.Fields(cmd.Use)[1:] {
		name, _, _ := strings.Cut(strings.Trim(word, "[]"), "|")
		if name != "" && name == strings.ToUpper(name) && !strings.HasPrefix(name, "-") {
			all = append(all, console.Field{Name: strings.ToLower(name), Help: cmd.Short, Operand: true, Required: !strings.HasPrefix(word, "[")})
		}
	}
	return all
}

// runForConsole runs a command as the command line does, at the console's
// sidecar, and gives what it printed or why it failed.
func runForConsole(ctx context.Context, d *daemonConn, argv []string) (string, error) {
	var out, errs bytes.Buffer
	root := newRoot(stdio{strings.NewReader(""), &out, &errs})
	if cmd, rest, err := root.Find(argv); err == nil && (cmd.Flags().Lookup("socket") != nil || cmd.InheritedFlags().Lookup("socket") != nil) {
		argv = append(append(strings.Fields(commandName(cmd)), "--socket="+d.path()), rest...)
	}
	root.SetArgs(argv)
	err := root.ExecuteContext(ctx)
	if f, ok := errors.AsType[*failure](err); ok {
		return "", &console.Problem{Text: f.Error(), Hint: f.hint}
	}
	if err != nil {
		return "", &console.Problem{Text: err.Error()}
	}
	return out.String() + errs.String(), nil
}
