package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/pkg/version"
)

// Exit codes.
const (
	exitRefused     = 1 // refused, or a finding
	exitUsage       = 2 // the command line is wrong, or a file that it names cannot be read
	exitUnreachable = 3 // a daemon, a Hub or a program that is needed is not there
)

// stdio is the streams of a command, passed in so that tests have their own.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// failure is an error with an exit code and a way out. An error that is none
// exits with exitRefused.
type failure struct {
	code int
	err  error  // nil: what there is to say has been said
	hint string // may be empty
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit code %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// usageError is a wrong command line.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...), fmt.Sprintf("see %s --help", cmd.CommandPath())}
}

// newRoot builds the whole command line.
func newRoot(s stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "tlsmcp",
		Short: "A mutual-TLS sidecar: certificates for services and AI agents",
		Long: `tlsmcp lets nobody in without a certificate: it terminates TLS 1.3, checks who
calls, and passes the plain bytes to a program on the same host.

Exit codes: 0 done, 1 refused or a finding, 2 usage, 3 unreachable.`,
		Version:       version.Get().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, "%w", err) })
	root.AddCommand(
		newRun(s),
		newStatus(s),
		newScore(s),
		newWatch(s),
		newConsole(s),
		newConns(s),
		newAudit(s),
		newAgents(s),
		newMCP(s),
		newReload(s),
		newDrain(s),
		newLogLevel(s),
		newConfig(s),
		newCert(s),
		newHub(s),
		newScan(s),
		newAlert(s),
		newQuickstart(s),
		newVersion(s),
	)
	addCompletions(root)
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		group(c)
	}
	return group(root)
}

// isGroup is the annotation of a command that only holds others.
const isGroup = "group"

// group makes cmd a command that only holds others. An unknown one is a usage
// error with a guess at what was meant; none at all shows the help.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.Annotations = map[string]string{isGroup: "yes"}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := usageError(cmd, "unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err.(*failure).hint = fmt.Sprintf("did you mean %q?", near[0])
		}
		return err
	}
	return cmd
}

// atMost allows n arguments. cobra's own check would exit with 1.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError(cmd, "too many arguments: %q", args[n:])
		}
		return nil
	}
}

// execute runs the command line and returns the exit code. It prints the error,
// if there is one that has not been.
func execute(ctx context.Context, args []string, s stdio) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	f, ok := errors.AsType[*failure](err)
	switch {
	case ok:
	case strings.HasPrefix(err.Error(), exclusiveFlags):
		f = &failure{exitUsage, togetherError(err), "give one of them"}
	default:
		f = &failure{code: exitRefused, err: err}
	}
	if f.err != nil {
		prefix := "tlsmcp:"
		if colours(s.err) {
			prefix = "\x1b[31mtlsmcp:\x1b[0m"
		}
		fmt.Fprintf(s.err, "%s %s\n", prefix, strings.TrimSuffix(f.err.Error(), "\n"))
		if f.hint != "" {
			fmt.Fprintf(s.err, "  hint: %s\n", f.hint)
		}
	}
	return f.code
}

// exclusiveFlags is how cobra's check of flags that exclude each other begins; its
// error has no type.
const exclusiveFlags = "if any flags in the group ["

// togetherError says it shorter: cobra names the whole group, and then those that
// were given, between the last brackets.
func togetherError(err error) error {
	text := err.Error()
	given := strings.Fields(text[strings.LastIndexByte(text, '[')+1 : max(strings.LastIndexByte(text, ']'), strings.LastIndexByte(text, '[')+1)])
	return fmt.Errorf("--%s exclude each other", strings.Join(given, " and --"))
}

// colours reports whether w shows colours: it is a terminal that can, and
// nobody asked for none (https://no-color.org).
func colours(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && terminal(w) }

// terminal reports whether w is a terminal that can move its cursor.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
