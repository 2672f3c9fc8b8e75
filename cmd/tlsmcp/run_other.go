//go:build !unix

package main

import "errors"

// become needs exec, which only Unix has; the daemon is for Linux anyway.
func become(string, []string) error {
	return errors.New("the daemon runs on Linux only")
}
