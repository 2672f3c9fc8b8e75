package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
)

// defaultConfig is where the package puts the configuration.
const defaultConfig = "/etc/tlsmcp/tlsmcp.toml"

// newRun is `tlsmcp run`: the daemon in the foreground. The daemon is a program
// of its own, so that what faces the network has nothing in it that only
// people need.
func newRun(stdio) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run [--config FILE] [-- FLAGS OF tlsmcpd]",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground: this process becomes tlsmcpd, found beside
this program or else in PATH. What follows -- is passed on to it.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 && len(args) > 0 {
				return usageError(cmd, "unexpected argument %q", args[0])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			daemon, err := locate("tlsmcpd")
			if err != nil {
				return err
			}
			err = become(daemon, append([]string{"tlsmcpd", "--config", file}, args...))
			return &failure{exitUnreachable, fmt.Errorf("run %s: %w", daemon, err), ""}
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration `FILE`")
	return cmd
}

// locate finds a program of ours for this process. The error has a way out.
func locate(program string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		self = ""
	}
	found, err := findProgram(self, program)
	if err != nil {
		return "", &failure{exitUnreachable, err, fmt.Sprintf("install %s beside tlsmcp or in PATH; it is built for Linux", program)}
	}
	return found, nil
}

// findProgram finds a program beside the program self, then beside what self
// links to, then in PATH.
func findProgram(self, program string) (string, error) {
	places := []string{self}
	if real, err := filepath.EvalSymlinks(self); err == nil && real != self {
		places = append(places, real)
	}
	for _, place := range places {
		if place == "" {
			continue
		}
		found, err := exec.LookPath(filepath.Join(filepath.Dir(place), program))
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("find %s: %w", program, err)
		}
	}
	found, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s is not beside tlsmcp and not in PATH", program)
	}
	return found, nil
}
