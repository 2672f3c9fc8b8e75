package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/score"
	"cyphers.ai/tlsmcp/pkg/text"
)

// scoreCommand is what `tlsmcp score` was asked for.
type scoreCommand struct {
	s       stdio
	h       *hubConn
	all     bool
	fleet   bool
	changes bool
	service string
	explain string
	diff    string
	scan    string
	under   int
}

// newScore is `tlsmcp score`.
func newScore(s stdio) *cobra.Command {
	c := &scoreCommand{s: s, h: new(hubConn)}
	cmd := &cobra.Command{Use: "score", Short: "Show the [cyphers] Score: how well a service is protected, and how to raise it", Args: atMost(0),
		Long: `score judges a service by what is measured of it: a number of 0 to 100, a grade,
and what to do next, by what it gains. What nobody measured counts nothing and is
shown as unmeasured; what is grave caps the whole score.

Without more it asks this host's sidecar. --service and --fleet ask the Hub, which
keeps how scores changed and why: --diff tells what changed since a time, --changes
lists each. --add-scan gives the Hub what a scan saw of a service from outside.
--explain tells what a row means, how it is measured and what it costs.

Exit codes: 0 done, 1 under --fail-under, 2 usage, 3 nobody is there to ask.`,
		Example: `  tlsmcp score --all
  tlsmcp score --fail-under 90
  tlsmcp score --service payment-api --diff 7d
  tlsmcp score --explain M1
  tlsmcp scan pay.example --format json | tlsmcp score --service payment-api --add-scan -`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) }}
	c.h.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&c.all, "all", false, "every row, those that are passed too")
	f.StringVar(&c.service, "service", "", "of this service, as the Hub judges it")
	f.BoolVar(&c.fleet, "fleet", false, "of all services together")
	f.IntVar(&c.under, "fail-under", 0, "exit with 1 when the score is under `N`")
	f.StringVar(&c.explain, "explain", "", "what the row `ID` means, such as M1")
	f.StringVar(&c.diff, "diff", "", "what changed since `TIME`: 24h or 7d ago, 2026-11-24, or in RFC 3339")
	f.BoolVar(&c.changes, "changes", false, "how the scores changed, the newest first")
	f.StringVar(&c.scan, "add-scan", "", "give the Hub what a scan saw: its JSON report in `FILE`, - for standard input; for --service")
	cmd.MarkFlagsMutuallyExclusive("service", "fleet")
	cmd.MarkFlagsMutuallyExclusive("explain", "diff", "changes", "add-scan", "fleet")
	return cmd
}

func (c *scoreCommand) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	switch {
	case c.under < 0 || c.under > 100:
		return usageError(cmd, "--fail-under %d: a score is 0 to 100", c.under)
	case cmd.Flags().Changed("explain"):
		return c.tellAbout(cmd)
	case c.scan != "":
		return c.addScan(cmd)
	case c.changes:
		return c.listChanges(ctx)
	case c.fleet:
		return c.showFleet(ctx)
	case c.diff != "":
		since, err := timeOf(c.diff, time.Now())
		if err != nil {
			return usageError(cmd, "--diff %w", err)
		}
		return c.showDiff(ctx, since)
	case c.service != "":
		return c.showService(ctx)
	}
	return c.showSidecar(ctx)
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
	_, err = fmt.Fprint(c.s.out, e.Text(widthOf(c.s.out)))
	return err
}

// showSidecar shows how this host's sidecar judges itself.
func (c *scoreCommand) showSidecar(ctx context.Context) error {
	res, err := ask(ctx, &c.h.daemon, (*controlclient.Client).GetScore, &controlv1.GetScoreRequest{})
	if err != nil {
		return err
	}
	r := new(score.Report)
	if err := fromStruct(res.GetReport(), r); err != nil {
		return err
	}
	return c.print(r.Score, r, func(p *scorePage) { p.report(r) })
}

// showService shows how the Hub judges a service.
func (c *scoreCommand) showService(ctx context.Context) error {
	res, err := call(ctx, c.h, (*hubclient.Client).GetScore, &hubv1.GetScoreRequest{ServiceId: c.service})
	if err != nil {
		return err
	}
	r := new(score.Report)
	if err := fromStruct(res.GetReport(), r); err != nil {
		return err
	}
	points := r.Score
	if res.GetSilent() {
		points = 0
	}
	return c.print(points, r, func(p *scorePage) {
		if res.GetSilent() {
			p.line("%s", p.paint.bad("No sidecar of the service has reported lately: in the fleet it counts as 0. This was so when one did:"))
		}
		p.report(r)
	})
}

func (c *scoreCommand) showFleet(ctx context.Context) error {
	res, err := call(ctx, c.h, (*hubclient.Client).GetScore, &hubv1.GetScoreRequest{})
	if err != nil {
		return err
	}
	f := new(score.Fleet)
	if err := fromStruct(res.GetFleet(), f); err != nil {
		return err
	}
	return c.print(f.Score, f, func(p *scorePage) { p.fleet(f) })
}

// showDiff shows what changed. Without a service it is about this sidecar's.
func (c *scoreCommand) showDiff(ctx context.Context, since time.Time) error {
	service, err := c.serviceOrOwn(ctx)
	if err != nil {
		return err
	}
	res, err := call(ctx, c.h, (*hubclient.Client).GetScore, &hubv1.GetScoreRequest{ServiceId: service, Since: timestamppb.New(since)})
	if err != nil {
		return err
	}
	d := new(score.Difference)
	if err := fromStruct(res.GetDifference(), d); err != nil {
		return err
	}
	return c.print(d.To.Score, d, func(p *scorePage) { p.difference(service, d) })
}

// serviceOrOwn is the service that was named, else this host's sidecar's.
func (c *scoreCommand) serviceOrOwn(ctx context.Context) (string, error) {
	if c.service != "" {
		return c.service, nil
	}
	hello, err := ask(ctx, &c.h.daemon, (*controlclient.Client).Hello, &controlv1.HelloRequest{})
	return hello.GetServiceId(), err
}

func (c *scoreCommand) listChanges(ctx context.Context) error {
	r := &hubv1.ListScoresRequest{ServiceId: c.service, PageSize: 100}
	res, err := call(ctx, c.h, (*hubclient.Client).ListScores, r)
	if err != nil {
		return err
	}
	return c.h.print(c.s, res, func() error {
		rows := [][]string{{"AT", "SERVICE", "SCORE", "GRADE", "BY", "WHY"}}
		for _, ch := range res.GetChanges() {
			rows = append(rows, []string{when(ch.GetAt()), ch.GetServiceId(), fmt.Sprint(ch.GetScore()), ch.GetGrade(), fmt.Sprintf("%+d", ch.GetDelta()), ch.GetReason()})
		}
		return table(c.s, rows)
	})
}

// addScan hands the Hub what a scan saw.
func (c *scoreCommand) addScan(cmd *cobra.Command) error {
	if c.service == "" {
		return usageError(cmd, "--add-scan: name the service that was scanned with --service")
	}
	const hint = "tlsmcp scan HOST --format json writes it"
	raw, err := readFileOr(c.s.in, c.scan)
	if err != nil {
		return &failure{exitUsage, err, hint}
	}
	facts, err := scannedFacts(raw)
	if err != nil {
		return &failure{exitUsage, fmt.Errorf("%s: %w", c.scan, err), hint}
	}
	res, err := call(cmd.Context(), c.h, (*hubclient.Client).AddScan, &hubv1.AddScanRequest{ServiceId: c.service, Facts: facts})
	if err != nil {
		return err
	}
	return c.h.print(c.s, res, func() error {
		_, err := fmt.Fprintf(c.s.out, "taken: %s\n", text.Clean(strings.Join(res.GetFacts(), " ")))
		return err
	})
}

// scannedFacts finds the facts in what tlsmcp scan wrote about one target.
func scannedFacts(raw []byte) (*structpb.Struct, error) {
	doc := new(structpb.Struct)
	if err := doc.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	switch reports := doc.GetFields()["reports"].GetListValue().GetValues(); len(reports) {
	case 0: // the facts by themselves, or nothing
	case 1:
		doc = reports[0].GetStructValue()
	default:
		return nil, fmt.Errorf("it is about %d targets: scan the service alone", len(reports))
	}
	if facts := doc.GetFields()["facts"].GetStructValue(); facts != nil {
		return facts, nil
	}
	if doc.GetFields()["schema_version"] == nil || doc.GetFields()["target"] != nil {
		return nil, errors.New("it holds no facts")
	}
	return doc, nil
}

// readFileOr reads a file, or in for "-".
func readFileOr(in io.Reader, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(in)
	}
	return os.ReadFile(path)
}

// print writes a value as JSON or as a page, and holds its score to the least
// one.
func (c *scoreCommand) print(points int, v any, page func(*scorePage)) error {
	if c.h.json {
		if err := c.json(v); err != nil {
			return err
		}
	} else {
		page(newScorePage(c.s.out, c.all))
	}
	switch {
	case points >= c.under:
		return nil
	case c.h.json:
		return &failure{code: exitRefused}
	}
	return &failure{exitRefused, fmt.Errorf("the score is %d, under %d", points, c.under), ""}
}

func (c *scoreCommand) json(v any) error {
	enc := json.NewEncoder(c.s.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// fromStruct reads a value of package score out of a message.
func fromStruct(m *structpb.Struct, v any) error {
	if err := hub.FromStruct(m, v); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	return nil
}
