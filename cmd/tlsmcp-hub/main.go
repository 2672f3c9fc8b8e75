// Command tlsmcp-hub is the control plane: it issues certificates, remembers
// and spreads revocations, and keeps policy, audit events and the fleet.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/version"
)

// Exit codes.
const (
	exitOK      = 0
	exitRefused = 1
	exitUsage   = 2
)

// defaultData is where the package keeps the Hub's state.
const defaultData = "/var/lib/tlsmcp-hub"

func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal does not wait.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// usage is a wrong command line.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "tlsmcp-hub: %s\n", told(err))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(stderr, "  hint: %s\n", hint)
	}
	var u usage
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitRefused
}

func told(err error) string {
	var p *problem.Error
	if errors.As(err, &p) {
		return p.Detail
	}
	return err.Error()
}

// hinted is an error with a way out.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hintOf(err error) string {
	var h hinted
	var p *problem.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &p):
		return p.Hint
	}
	return ""
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tlsmcp-hub",
		Short: "The control plane of tlsmcp: CA, policy, revocation, events, fleet",
		Long: `tlsmcp-hub issues certificates to services and AI agents, and tells every
sidecar of a revocation in under a second.

Exit codes: 0 done, 1 refused, 2 usage.`,
		Version:       version.Get().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          none,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage{hinted{err, "see " + cmd.CommandPath() + " --help"}}
	})
	root.AddCommand(newServe(), newInit(), newBackup(), newRestore(), newToken(), newCA(), newVersion())
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Args, c.RunE = none, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return root
}

// none allows no arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage{hinted{fmt.Errorf("unexpected argument %q", args[0]), "see " + cmd.CommandPath() + " --help"}}
}

// one allows exactly one argument.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return usage{hinted{fmt.Errorf("%s takes one argument, %s", cmd.CommandPath(), what), "see " + cmd.CommandPath() + " --help"}}
	}
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "version", Short: "Show which build this is", Args: none, RunE: func(cmd *cobra.Command, _ []string) error {
		v := version.Get()
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "tlsmcp-hub %s\n", v)
		return err
	}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
