package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/control"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hubjson"
)

// daemonConn says which sidecar of this host a command asks.
type daemonConn struct {
	socket, instance string
	json             bool
}

// flags adds the flags to a command or to a group of them, and --json.
func (d *daemonConn) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&d.socket, "socket", os.Getenv("TLSMCP_SOCKET"), "`PATH` of the sidecar's control socket (TLSMCP_SOCKET)")
	f.StringVar(&d.instance, "instance", "", "the sidecar tlsmcpd@`NAME` of this host")
	f.BoolVar(&d.json, "json", false, "as JSON")
	cmd.MarkFlagsMutuallyExclusive("socket", "instance")
}

// path is where the sidecar listens.
func (d *daemonConn) path() string {
	if d.socket != "" && d.instance == "" {
		return d.socket
	}
	return control.InstanceSocket(d.instance)
}

func (d *daemonConn) connect() *controlclient.Client {
	return controlclient.New(controlclient.Options{Socket: d.path(), Agent: os.Getenv("TLSMCP_AGENT")})
}

// explainControl turns what a call failed with into a failure.
func explainControl(c *controlclient.Client, err error) error {
	t, away := c.Explain(err)
	switch {
	case t == nil:
		return nil
	case away:
		return &failure{exitUnreachable, errors.New(t.Detail), t.Hint}
	}
	return &failure{exitRefused, errors.New(t.Detail), t.Hint}
}

// ask asks the sidecar one thing: method is a method of the client, such as
// (*controlclient.Client).GetStatus.
func ask[Req, Res any](ctx context.Context, d *daemonConn, method func(*controlclient.Client, context.Context, Req) (Res, error), r Req) (Res, error) {
	c := d.connect()
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := method(c, ctx, r)
	return res, explainControl(c, err)
}

// print writes a message as JSON, or by text.
func (d *daemonConn) print(s stdio, m proto.Message, text func() error) error {
	if !d.json {
		return text()
	}
	return printJSON(s, m)
}

// printJSON writes a message for a person or a program to read.
func printJSON(s stdio, m proto.Message) error {
	out, err := hubjson.MarshalIndent(m)
	if err != nil {
		return err
	}
	_, err = s.out.Write(out)
	return err
}
