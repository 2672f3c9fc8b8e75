package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/score"
)

// scoreCommand is what `tlsmcp score` was asked for.
type scoreCommand struct {
	s       stdio
	h       *hubConn
	all     bool
	under   int
	explain string
}

// newScore is `tlsmcp score`.
func newScore(s stdio) *cobra.Command {
	c := &scoreCommand{s: s, h: new(hubConn)}
	cmd := &cobra.Command{Use: "score", Short: "Show the [cyphers] Score: how well a service is protected, and how to raise it", Args: atMost(0),
		Long: `score judges this host's sidecar by what it measures of itself: a number of 0 to
100, a grade, and what to do next, by what it gains. What nobody measured counts
nothing and is shown as unmeasured; what is grave caps the whole score.

--explain tells what a row means, how it is measured and what it costs.

Exit codes: 0 done, 1 under --fail-under, 2 usage, 3 nobody is there to ask.`,
		Example: `  tlsmcp score --all
  tlsmcp score --fail-under 90
  tlsmcp score --explain M1`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.under < 0 || c.under > 100 {
				return usageError(cmd, "--fail-under %d: a score is 0 to 100", c.under)
			}
			if cmd.Flags().Changed("explain") {
				return c.tellAbout(cmd)
			}
			return c.show(cmd.Context())
		}}
	c.h.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&c.all, "all", false, "every row, those that are passed too")
	f.IntVar(&c.under, "fail-under", 0, "exit with 1 when the score is under `N`")
	f.StringVar(&c.explain, "explain", "", "what the row `ID` means, such as M1")
	return cmd
}

// tellAbout explains a row. Nobody has to be asked.
func (c *scoreCommand) tellAbout(cmd *cobra.Command) error {
	e, err := score.Explain(score.V1(), c.explain)
	if err != nil {
		return usageError(cmd, "%w", err)
	}
	if c.h.json {
		return c.json(e)
	}
	_, err = fmt.Fprint(c.s.out, e.Text())
	return err
}

func (c *scoreCommand) show(ctx context.Context) error {
	res, err := ask(ctx, &c.h.daemon, (*controlclient.Client).GetScore, &controlv1.GetScoreRequest{})
	if err != nil {
		return err
	}
	r := new(score.Report)
	if err := fromStruct(res.GetReport(), r); err != nil {
		return err
	}
	if c.h.json {
		err = c.json(r)
	} else {
		newScorePage(c.s.out, c.all).report(r)
	}
	if err == nil && r.Score < c.under {
		err = &failure{code: exitRefused}
		if !c.h.json {
			err = &failure{exitRefused, fmt.Errorf("the score is %d, under %d", r.Score, c.under), ""}
		}
	}
	return err
}

func (c *scoreCommand) json(v any) error {
	enc := json.NewEncoder(c.s.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// fromStruct reads a value of package score out of a message.
func fromStruct(m *structpb.Struct, v any) error {
	if m == nil {
		return errors.New("the answer holds no report")
	}
	raw, err := m.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	return nil
}
