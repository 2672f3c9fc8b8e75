// Command tlsmcp is the command line of a tlsmcp sidecar: it checks
// configurations, runs the daemon in the foreground, and shows what there is.
//
// One verb is one file. Each has a constructor that takes the streams and
// returns a cobra command, and one line in newRoot.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// start runs the command line of this process and returns its exit code.
func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return execute(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
}
