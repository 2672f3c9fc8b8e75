package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// Order is one change that somebody wants. Its verb is the command of the
// command line that does the same, "cert revoke".
type Order struct {
	Verb string
	Args Args
}

// Args are what an order is about, by name.
type Args map[string]string

// list splits a value at commas and spaces.
func (a Args) list(name string) []string {
	return strings.FieldsFunc(a[name], func(r rune) bool { return r == ',' || r == ' ' })
}

// Outcome is what came of an order.
type Outcome struct {
	Text   string   // one line
	Lines  []string // more, to be read and kept: a token, where files are
	Reload []Topic  // what it changed
}

// Problem is why something was refused, and the way out.
type Problem struct{ Text, Hint string }

func (p *Problem) Error() string { return p.Text }

// doer carries out the orders of one verb.
type doer func(*daemon, context.Context, Args) (Outcome, error)

// doers has one for each verb that the console does by itself. Everything else
// is done by the command of that name.
func doers() map[string]doer {
	return map[string]doer{
		"conns close": (*daemon).closeConnections,
		"mcp approve": (*daemon).approve,
		"reload":      (*daemon).reload,
		"drain":       (*daemon).drain,
		"log-level":   (*daemon).logLevel,
		"cert issue":  (*daemon).issue,
		"cert renew":  (*daemon).renew,
		"cert revoke": (*daemon).revoke,
		"cert lift":   (*daemon).lift,
	}
}

func (d *daemon) Do(ctx context.Context, o Order) (Outcome, error) {
	if do, ok := doers()[o.Verb]; ok {
		return do(d, ctx, o.Args)
	}
	return d.command(ctx, o)
}

// Explain adds the console's own refusals to what the client explains, and that
// a connection which broke means a daemon that went away.
func (d *daemon) Explain(err error) (*controlclient.Trouble, bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return &controlclient.Trouble{Detail: p.Text, Hint: p.Hint}, false
	}
	t, away := d.Client.Explain(err)
	_, broke := errors.AsType[*brokenError](err)
	if broke && !away || errors.Is(err, errEnded) {
		return &controlclient.Trouble{Detail: "the daemon went away", Hint: "systemctl status tlsmcpd says why"}, true
	}
	return t, away
}

// command runs a command of the command line, with what a form was filled with.
func (d *daemon) command(ctx context.Context, o Order) (Outcome, error) {
	i := slices.IndexFunc(d.commands, func(c Command) bool { return c.Path == o.Verb })
	if i < 0 || d.run == nil {
		return Outcome{}, fmt.Errorf("nobody knows how to do %q", o.Verb)
	}
	argv := strings.Fields(o.Verb)
	var operands []string
	for _, f := range d.commands[i].Fields {
		value := strings.TrimSpace(o.Args[f.Name])
		switch {
		case value == "" && f.Required:
			return Outcome{}, &Problem{f.Name + " is missing", f.Help}
		case value == "" || f.Switch && value != "yes":
		case f.Operand:
			operands = append(operands, value)
		case f.Switch:
			argv = append(argv, "--"+f.Name)
		default:
			argv = append(argv, "--"+f.Name+"="+value)
		}
	}
	out, err := d.run(ctx, append(append(argv, "--"), operands...))
	if err != nil {
		return Outcome{}, err
	}
	done := Outcome{Text: o.Verb + ": done", Reload: []Topic{TopicStatus, TopicCertificates, TopicFleet}}
	if out = strings.TrimSpace(out); out != "" {
		done.Lines = strings.Split(out, "\n")
	}
	return done, nil
}

func (d *daemon) closeConnections(ctx context.Context, a Args) (Outcome, error) {
	r := &controlv1.CloseConnectionsRequest{Identity: a["identity"], Serial: a["serial"]}
	if a["id"] != "" {
		id, err := strconv.ParseUint(a["id"], 10, 64)
		if err != nil {
			return Outcome{}, &Problem{fmt.Sprintf("%q is no connection's number", a["id"]), "the feed's details show it"}
		}
		r.Id = id
	}
	done, err := d.CloseConnections(ctx, r)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: text.Plural(done.GetClosed(), "connection") + " closed; the client may come again", Reload: []Topic{TopicConnections}}, nil
}

func (d *daemon) approve(ctx context.Context, a Args) (Outcome, error) {
	r := &controlv1.ApproveToolsRequest{Digest: a["digest"]}
	if a["tool"] == "" {
		r.All = true
	} else {
		r.Names = []string{a["tool"]}
	}
	done, err := d.ApproveTools(ctx, r)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: text.Plural(len(done.GetTools()), "tool") + " held to the new definition", Reload: []Topic{TopicAgents}}, nil
}

func (d *daemon) reload(ctx context.Context, _ Args) (Outcome, error) {
	done, err := d.Reload(ctx, &controlv1.ReloadRequest{})
	if err != nil {
		return Outcome{}, err
	}
	o := Outcome{Text: "the configuration was read again and is in force", Reload: []Topic{TopicStatus}}
	for _, k := range done.GetRestartKeys() {
		o.Lines = append(o.Lines, k+" takes effect at the next restart")
	}
	o.Lines = append(o.Lines, done.GetWarnings()...)
	return o, nil
}

func (d *daemon) drain(ctx context.Context, _ Args) (Outcome, error) {
	done, err := d.Drain(ctx, &controlv1.DrainRequest{})
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: "the sidecar is stopping; " + text.Plural(done.GetConnections(), "connection") + " may finish", Reload: []Topic{TopicStatus}}, nil
}

func (d *daemon) logLevel(ctx context.Context, a Args) (Outcome, error) {
	done, err := d.SetLogLevel(ctx, &controlv1.SetLogLevelRequest{Level: a["level"]})
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: fmt.Sprintf("the log level was %s and is %s", done.GetBefore(), a["level"]), Reload: []Topic{TopicStatus}}, nil
}

// onHub carries out an order at the Hub.
func (d *daemon) onHub(ctx context.Context, do func(*hubclient.Client) (Outcome, error)) (Outcome, error) {
	return withHub(ctx, d, func(_ context.Context, h *hubclient.Client) (Outcome, error) { return do(h) })
}

// named is the kind and name of an order about a name instead of a certificate.
func (a Args) named() (kind, name string) {
	switch {
	case a["identity"] != "":
		return "identity", a["identity"]
	case a["service"] != "":
		return "service", a["service"]
	}
	return "", ""
}

func (a Args) require(names ...string) error {
	for _, n := range names {
		if strings.TrimSpace(a[n]) == "" {
			return &Problem{cmp.Or(n, "a value") + " is missing", "fill it in"}
		}
	}
	return nil
}
