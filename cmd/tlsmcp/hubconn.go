package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/jointoken"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/text"
)

// defaultHubSocket is where a Hub on this host listens.
const defaultHubSocket = "/run/tlsmcp-hub/hub.sock"

// hubConn says which Hub a command asks, and as whom.
type hubConn struct {
	url, socket, tokenFile, caFile string
	daemon                         daemonConn
	json                           bool
}

// flags adds the flags to a group of commands, and --json to each.
func (h *hubConn) flags(cmd *cobra.Command) {
	h.where(cmd)
	cmd.PersistentFlags().BoolVar(&h.json, "json", false, "as JSON")
}

// where adds the flags that say which Hub is asked, and as whom.
func (h *hubConn) where(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&h.url, "hub", os.Getenv("TLSMCP_HUB"), `the Hub's URL, "https://HOST:PORT" (TLSMCP_HUB); without it the Hub of this host's sidecar is asked`)
	f.StringVar(&h.tokenFile, "token-file", os.Getenv("TLSMCP_TOKEN_FILE"), "file with a bearer token (TLSMCP_TOKEN_FILE; TLSMCP_TOKEN holds the token itself)")
	f.StringVar(&h.caFile, "hub-ca", "", "PEM file with the Hub's root, instead of the root that the token names")
	f.StringVar(&h.socket, "hub-socket", "", "Unix `PATH` of a Hub on this host (default: where the sidecar says, else "+defaultHubSocket+")")
	f.StringVar(&h.daemon.socket, "socket", os.Getenv("TLSMCP_SOCKET"), "`PATH` of the sidecar's control socket (TLSMCP_SOCKET)")
	f.StringVar(&h.daemon.instance, "instance", "", "the sidecar tlsmcpd@`NAME` of this host")
	cmd.MarkFlagsMutuallyExclusive("socket", "instance")
	cmd.MarkFlagsMutuallyExclusive("hub", "hub-socket")
}

// token is the bearer token; empty when there is none.
func (h *hubConn) token() (string, error) {
	if h.tokenFile == "" {
		return strings.TrimSpace(os.Getenv("TLSMCP_TOKEN")), nil
	}
	raw, err := os.ReadFile(h.tokenFile)
	if err != nil {
		return "", &failure{exitUsage, fmt.Errorf("token: %w", err), "name the file with --token-file"}
	}
	return strings.TrimSpace(string(raw)), nil
}

// connect makes a client, in the name of whoever runs the command: of the Hub
// that the flags name, else of the one that this host's sidecar belongs to, else
// of one at the usual place.
func (h *hubConn) connect(ctx context.Context) (*hubclient.Client, error) {
	switch {
	case h.socket != "": // the flag says more than the environment
	case h.url != "":
		return h.connectURL()
	default:
		c, err := h.throughDaemon(ctx)
		if c != nil || err != nil {
			return c, err
		}
		h.socket = defaultHubSocket
	}
	return hubclient.New(hubclient.Options{Socket: h.socket})
}

// throughDaemon asks the sidecar for its Hub; nil when there is no sidecar that
// would say.
func (h *hubConn) throughDaemon(ctx context.Context) (*hubclient.Client, error) {
	token, err := h.token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d := h.daemon.connect()
	c, err := d.Hub(ctx, token)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, controlclient.ErrNoHub):
		return nil, &failure{exitRefused, err, "name the Hub to ask with --hub URL, or with --hub-socket PATH"}
	case h.daemon.socket != "" || h.daemon.instance != "":
		return nil, explainControl(d, err)
	}
	return nil, nil
}

func (h *hubConn) connectURL() (*hubclient.Client, error) {
	text, err := h.token()
	if err != nil {
		return nil, err
	}
	o := hubclient.Options{URL: h.url, Token: text}
	if text == "" {
		return nil, &failure{exitUsage, errors.New("there is no token to ask the Hub with"), "make one with tlsmcp-hub token create, and name its file with --token-file"}
	}
	t, err := jointoken.Parse(text)
	if err != nil {
		return nil, &failure{exitUsage, err, "tlsmcp-hub token create makes a token"}
	}
	o.RootHash = &t.Root
	if h.caFile != "" {
		roots, err := pki.LoadBundle(h.caFile)
		if err != nil {
			return nil, &failure{exitUsage, err, "--hub-ca names the Hub's root in PEM"}
		}
		o.RootHash, o.Roots = nil, func() []*x509.Certificate { return roots }
	}
	c, err := hubclient.New(o)
	if err != nil {
		return nil, &failure{exitUsage, err, `write it like "https://hub.example:9443"`}
	}
	return c, nil
}

// explain turns what a call failed with into a failure.
func (h *hubConn) explain(err error) error {
	if err == nil {
		return nil
	}
	if p := hubclient.Problem(err); p != nil {
		return &failure{exitRefused, errors.New(p.GetDetail()), p.GetHint()}
	}
	if hubclient.Unreachable(err) {
		where, hint := "the Hub at "+h.url, "is tlsmcp-hub running there, and is the port open?"
		switch {
		case h.url != "" && errors.Is(err, hubtrust.ErrOtherRoot):
			hint = "check --hub; a token is good at the Hub that made it only"
		case h.url == "" && h.socket != "":
			where, hint = "the Hub at "+h.socket, hubHint(h.socket)
		case h.url == "":
			where, hint = "the sidecar's Hub", hubHint("")
		}
		return &failure{exitUnreachable, fmt.Errorf("%s does not answer: %w", where, hubclient.Explain(err)), hint}
	}
	return &failure{exitRefused, hubclient.Explain(err), ""}
}

// hubHint is what to do when no Hub on this host answers.
func hubHint(socket string) string {
	if _, err := os.Stat(socket); socket != "" && errors.Is(err, os.ErrNotExist) {
		if _, err := exec.LookPath("tlsmcp-hub"); err != nil {
			return "install one (apt install tlsmcp-hub, or dnf install tlsmcp-hub); --hub URL asks another one"
		}
		return "start it with systemctl enable --now tlsmcp-hub.socket; --hub URL asks another one"
	}
	return "is tlsmcp-hub running on this host? --hub URL asks another one"
}

// call asks the Hub one thing: method is a method of the client, such as
// (*hubclient.Client).GetFleet.
func call[Req, Res any](ctx context.Context, h *hubConn, method func(*hubclient.Client, context.Context, Req) (Res, error), r Req) (Res, error) {
	var none Res
	c, err := h.connect(ctx)
	if err != nil {
		return none, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := method(c, ctx, r)
	return res, h.explain(err)
}

// print writes a message as JSON, or by text.
func (h *hubConn) print(s stdio, m proto.Message, text func() error) error {
	if !h.json {
		return text()
	}
	return printJSON(s, m)
}

// table writes rows in columns; the first is the head.
func table(s stdio, rows [][]string) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = cmp.Or(text.Clean(cell), "-")
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// when writes a time for a table.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

// left writes how long something is good still.
func left(t *timestamppb.Timestamp) string {
	d := time.Until(t.AsTime())
	if d > time.Hour {
		d = d.Round(time.Minute) // what was just issued for a day has a day left
	}
	if d < 0 {
		return "over"
	}
	return text.Span(d)
}

// exactly allows n arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError(cmd, "%s takes %s", cmd.CommandPath(), what)
		}
		return nil
	}
}
