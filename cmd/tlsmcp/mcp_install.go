package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cyphers.ai/tlsmcp/mcp/install"
)

// installOptions are the flags of `tlsmcp mcp install` and `uninstall`.
type installOptions struct {
	client, project, file string
	dryRun, force         bool
}

func (o *installOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.client, "client", "", "the AI client: "+strings.Join(install.Clients(), ", "))
	f.StringVar(&o.project, "project", "", "the file of the project in `DIR`, instead of the user's")
	f.StringVar(&o.file, "file", "", "this `FILE`, instead of the client's usual one")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change, and change nothing")
	f.BoolVar(&o.force, "force", false, "also when the server of this name is another program's")
}

// options are what the installer wants to know.
func (o *installOptions) options(cmd *cobra.Command, name string) (install.Options, error) {
	none := install.Options{}
	if o.client == "" {
		return none, usageError(cmd, "whose configuration? --client is one of %s", strings.Join(install.Clients(), ", "))
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return none, usageError(cmd, "%q is no name for a server", name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return none, &failure{exitUsage, err, "name the file with --file"}
	}
	place := install.Place{GOOS: runtime.GOOS, Home: home, Config: os.Getenv("XDG_CONFIG_HOME")}
	if runtime.GOOS == "windows" {
		place.Config = os.Getenv("APPDATA")
	}
	if o.project != "" {
		if place.Project, err = filepath.Abs(o.project); err != nil {
			return none, err
		}
		if info, err := os.Stat(place.Project); err != nil || !info.IsDir() {
			return none, &failure{exitUsage, fmt.Errorf("%s is no directory", o.project), "name the project's directory with --project"}
		}
	}
	return install.Options{Client: o.client, Place: place, File: o.file, Name: name, Force: o.force}, nil
}

// newMCPInstall is `tlsmcp mcp install`.
func newMCPInstall(s stdio) *cobra.Command {
	o, c, self := &installOptions{}, &connectOptions{}, &selfOptions{}
	cmd := &cobra.Command{Use: "install --client CLIENT NAME URL", Short: "Write a protected MCP server, or tlsmcp itself, into an AI client's configuration",
		Long: `install adds an entry NAME to the client's configuration, which has it start tlsmcp
mcp connect URL with the flags that are given here. Whatever else is in the file
stays as it is, comments too, and a copy of the file is left beside it.

With --self there is no URL: the entry starts tlsmcp mcp serve.`,
		Example: `  tlsmcp mcp install --client claude-desktop files https://files.example:8443/mcp --identity claude-ops
  tlsmcp mcp install --client vscode --project . files https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt --dry-run
  tlsmcp mcp install --self`,
		Args: self.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if self.self {
				return self.install(cmd, s, o, args)
			}
			entry, err := connectEntry(cmd, c, args[1])
			if err != nil {
				return err
			}
			return runInstall(cmd, s, o, args[0], entry)
		}}
	o.flags(cmd)
	c.flags(cmd)
	self.flags(cmd)
	return cmd
}

// connectEntry has a client start tlsmcp mcp connect, with the flags that this
// command was given.
func connectEntry(cmd *cobra.Command, c *connectOptions, address string) (install.Entry, error) {
	u, err := serverURL(address)
	if err != nil {
		return install.Entry{}, err
	}
	if c.identity == "" { // what the files are for is found out now, and not by the client
		if _, err := c.credentials(cmd, nil, nil); err != nil {
			return install.Entry{}, err
		}
	}
	args := []string{"connect", u.String()}
	names := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	other := &cobra.Command{}
	(&connectOptions{}).flags(other)
	names.AddFlagSet(other.Flags())
	names.AddFlagSet(other.PersistentFlags())
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if names.Lookup(f.Name) == nil {
			return
		}
		value := f.Value.String()
		switch f.Name {
		case "cert", "key", "ca", "identity-dir", "token-file", "hub-ca", "hub-socket", "socket": // the client starts it elsewhere
			if full, err := filepath.Abs(value); err == nil {
				value = full
			}
		}
		args = append(args, "--"+f.Name, value)
	})
	return entryOf(args...)
}

// entryOf has a client start this program's tlsmcp mcp.
func entryOf(args ...string) (install.Entry, error) {
	self, err := os.Executable()
	if err != nil {
		return install.Entry{}, fmt.Errorf("find this program: %w", err)
	}
	return install.Entry{Command: self, Args: append([]string{"mcp"}, args...)}, nil
}

// runInstall writes an entry, or shows what it would write.
func runInstall(cmd *cobra.Command, s stdio, o *installOptions, name string, entry install.Entry) error {
	options, err := o.options(cmd, name)
	if err != nil {
		return err
	}
	change, err := install.Install(options, entry)
	if err != nil {
		return installFailure(err)
	}
	if change.Same() {
		fmt.Fprintf(s.out, "%s has %s already\n", change.File, name)
		return nil
	}
	return o.apply(s, change, fmt.Sprintf("%s has %s now; %s", change.File, name, change.Restart))
}

func (o *installOptions) apply(s stdio, change *install.Change, done string) error {
	if o.dryRun {
		_, err := fmt.Fprint(s.out, change.Diff())
		return err
	}
	backup, err := change.Apply(time.Now())
	if err != nil {
		return &failure{exitRefused, err, ""}
	}
	fmt.Fprintln(s.out, done)
	if backup != "" {
		fmt.Fprintf(s.out, "what it was before is in %s\n", backup)
	}
	return nil
}

// newMCPUninstall is `tlsmcp mcp uninstall`.
func newMCPUninstall(s stdio) *cobra.Command {
	o := &installOptions{}
	cmd := &cobra.Command{Use: "uninstall --client CLIENT NAME", Short: "Take a server out of an AI client's configuration",
		Long: `uninstall takes the entry NAME out that tlsmcp mcp install wrote. Whatever else is
in the file stays as it is, and a copy of the file is left beside it.`,
		Args: exactly(1, "the name of the server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := o.options(cmd, args[0])
			if err != nil {
				return err
			}
			change, err := install.Uninstall(options)
			if err != nil {
				return installFailure(err)
			}
			return o.apply(s, change, fmt.Sprintf("%s has no %s any more; %s", change.File, args[0], change.Restart))
		}}
	o.flags(cmd)
	return cmd
}

// installFailure says what to do about an error of the installer.
func installFailure(err error) error {
	for _, e := range []struct {
		is   error
		code int
		hint string
	}{
		{install.ErrUnknownClient, exitUsage, "--client is one of " + strings.Join(install.Clients(), ", ")},
		{install.ErrNoProject, exitUsage, "leave --project away"},
		{install.ErrTaken, exitRefused, "choose another name, or --force"},
		{install.ErrNotThere, exitRefused, "--dry-run with tlsmcp mcp install shows which file is meant"},
		{os.ErrPermission, exitRefused, "may you write this file?"},
	} {
		if errors.Is(err, e.is) {
			return &failure{e.code, err, e.hint}
		}
	}
	return &failure{exitRefused, err, "mend the file, and try again: nothing was changed"}
}
