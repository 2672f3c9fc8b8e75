package main

import (
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cyphers.ai/tlsmcp/mcp/install"
)

// selfOptions are the flags of `tlsmcp mcp install --self`: the entry is this
// program's own server, and not a protected one.
type selfOptions struct {
	self    bool
	writes  bool
	keyDirs []string
}

func (o *selfOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.self, "self", false, "the server is tlsmcp mcp serve, which works the sidecar on this host; NAME is tlsmcp and CLIENT claude-desktop unless said")
	f.BoolVar(&o.writes, "allow-writes", false, "with --self: let it issue and revoke")
	f.StringSliceVar(&o.keyDirs, "key-dir", nil, "with --self: `DIR` below which it may write keys")
}

// args are the arguments of the command: a name alone may be given with --self.
func (o *selfOptions) args(cmd *cobra.Command, args []string) error {
	if !o.self {
		for _, flag := range []string{"allow-writes", "key-dir"} {
			if cmd.Flags().Changed(flag) {
				return usageError(cmd, "--%s goes with --self", flag)
			}
		}
		return exactly(2, "a name for the server and its address, or --self")(cmd, args)
	}
	var stray string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains([]string{"self", "allow-writes", "key-dir", "socket", "instance", "token-file", "client", "project", "file", "dry-run", "force"}, f.Name) {
			stray = f.Name
		}
	})
	if stray != "" {
		return usageError(cmd, "--%s is for a server with an address, and does not go with --self", stray)
	}
	return atMost(1)(cmd, args)
}

// install writes the entry.
func (o *selfOptions) install(cmd *cobra.Command, s stdio, target *installOptions, args []string) error {
	name := "tlsmcp"
	if len(args) == 1 {
		name = args[0]
	}
	if target.client == "" {
		target.client = "claude-desktop"
	}
	entry, err := o.entry(cmd)
	if err != nil {
		return err
	}
	return runInstall(cmd, s, target, name, entry)
}

// entry has a client start the server with the flags that this command was given.
func (o *selfOptions) entry(cmd *cobra.Command) (install.Entry, error) {
	args := []string{"serve"}
	for _, flag := range []string{"socket", "instance", "token-file"} {
		f := cmd.Flags().Lookup(flag)
		if f == nil || !f.Changed {
			continue
		}
		value := f.Value.String()
		if flag != "instance" {
			full, err := filepath.Abs(value) // the client starts it elsewhere
			if err != nil {
				return install.Entry{}, err
			}
			value = full
		}
		args = append(args, "--"+flag, value)
	}
	if o.writes {
		args = append(args, "--allow-writes")
	}
	for _, dir := range o.keyDirs {
		full, err := filepath.Abs(dir)
		if err != nil {
			return install.Entry{}, err
		}
		args = append(args, "--key-dir", full)
	}
	return entryOf(args...)
}
