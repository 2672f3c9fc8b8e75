package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newConfig is `tlsmcp config`.
func newConfig(s stdio) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
	}
	cmd.AddCommand(newConfigCheck(s), newConfigShow(s))
	return group(cmd)
}

// newConfigCheck is `tlsmcp config check`.
func newConfigCheck(s stdio) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration: every fault at once, and what has no effect yet",
		Long: `Check a configuration without running anything. Every fault is listed, each
with its line and key; so is every key whose effect this version lacks.

FILE is ` + defaultConfig + ` unless named; - is the standard input (TOML).
Exit codes: 0 valid, 1 faults, 2 the file cannot be read.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := fileArgument(args)
			c, err := loadConfig(s.in, file)
			faults, refused := errors.AsType[config.Faults](err)
			switch {
			case err != nil && !refused:
				return unreadable(err)
			case asJSON:
				return checkJSON(s.out, file, c, faults)
			case refused:
				return refuse(s.err, file, faults)
			}
			fmt.Fprintf(s.out, "%s: ok\n", file)
			for _, w := range c.Warnings() {
				fmt.Fprintf(s.out, "warning: %s\n", w.Error())
				if w.Hint != "" {
					fmt.Fprintf(s.out, "  hint: %s\n", w.Hint)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// newConfigShow is `tlsmcp config show`.
func newConfigShow(s stdio) *cobra.Command {
	d := new(daemonConn)
	var running bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show the configuration in effect: defaults filled in, secrets redacted",
		Long: `show writes out what a configuration says, with every default, as TOML or JSON.
FILE is ` + defaultConfig + ` unless named; - is the standard input (TOML).

With --running it is what the sidecar runs with: what it read last, and not what
the file says since, or says wrongly. --socket and --instance mean the same.`,
		Example: `  tlsmcp config show
  tlsmcp config show > file.toml; tlsmcp config show --running | diff file.toml -`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if running || cmd.Flags().Changed("socket") || cmd.Flags().Changed("instance") {
				if len(args) > 0 {
					return usageError(cmd, "--running asks the sidecar, and goes without a file")
				}
				return showRunning(cmd.Context(), s, d)
			}
			file := fileArgument(args)
			c, err := loadConfig(s.in, file)
			if faults, ok := errors.AsType[config.Faults](err); ok {
				return refuse(s.err, file, faults)
			}
			if err != nil {
				return unreadable(err)
			}
			return showConfig(s, d, c)
		},
	}
	d.flags(cmd)
	cmd.Flags().BoolVar(&running, "running", false, "what the sidecar runs with, instead of what a file says")
	return cmd
}

func showConfig(s stdio, d *daemonConn, c *config.Config) error {
	if d.json {
		return c.Show(s.out, "json")
	}
	return c.Show(s.out, "toml")
}

// showRunning shows the configuration in force. What the daemon gives is a file with
// every key, which this program's version of the format must be able to read.
func showRunning(ctx context.Context, s stdio, d *daemonConn) error {
	r, err := ask(ctx, d, (*controlclient.Client).GetConfig, &controlv1.GetConfigRequest{})
	if err != nil {
		return err
	}
	c, err := config.Parse("the configuration in force", []byte(r.GetToml()))
	if err != nil {
		if d.json {
			return &failure{exitRefused, fmt.Errorf("a sidecar of another version: %w", err), "without --json it is shown as it is"}
		}
		_, err = io.WriteString(s.out, r.GetToml())
		return err
	}
	return showConfig(s, d, c)
}

// fileArgument is the file that a command is about.
func fileArgument(args []string) string {
	if len(args) == 0 {
		return defaultConfig
	}
	return args[0]
}

// loadConfig reads a configuration from a file, or from in for "-".
func loadConfig(in io.Reader, file string) (*config.Config, error) {
	if file != "-" {
		return config.Load(file)
	}
	data, err := io.ReadAll(io.LimitReader(in, 2<<20)) // more than Parse accepts
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return config.Parse(file, data)
}

// unreadable is the failure of a file that cannot be read.
func unreadable(err error) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "name another file after the command"
	case errors.Is(err, fs.ErrPermission):
		hint = "run it as a user who may read the file"
	}
	return &failure{exitUsage, err, hint}
}

// refuse prints faults and fails.
func refuse(w io.Writer, file string, faults config.Faults) error {
	fmt.Fprintln(w, faults.Error())
	return &failure{exitRefused, fmt.Errorf("%s is refused: %s", file, text.Plural(len(faults), "fault")), ""}
}

// finding is a fault or a warning as JSON.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // 0: it is about something absent
	Key     string `json:"key"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// checkJSON prints the outcome of a check; it fails, with nothing more to say,
// when there are faults.
func checkJSON(w io.Writer, file string, c *config.Config, faults config.Faults) error {
	outcome := struct {
		File     string    `json:"file"`
		OK       bool      `json:"ok"`
		Faults   []finding `json:"faults"`
		Warnings []finding `json:"warnings"`
	}{file, len(faults) == 0, findings(faults), []finding{}}
	if c != nil {
		outcome.Warnings = findings(c.Warnings())
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(outcome); err != nil {
		return fmt.Errorf("print the outcome: %w", err)
	}
	if len(faults) > 0 {
		return &failure{code: exitRefused}
	}
	return nil
}

// findings converts faults; none is an empty list, not null.
func findings(faults []config.Fault) []finding {
	out := make([]finding, 0, len(faults))
	for _, f := range faults {
		out = append(out, finding(f))
	}
	return out
}
