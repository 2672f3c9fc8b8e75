package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/pkg/score"
)

func (s *Server) addScoreTool() {
	add(s, tool{name: "tlsmcp_score", title: "Score", icon: iconGauge, reads: true, repeats: true,
		description: `Get the [cyphers] Score of this sidecar's service: 0 to 100 with a grade, what each category adds, what caps it, and what to do next, the most useful first, each with the points that it gains and the command or setting that does it.

Apply the first recommendation, then call it again to see the score rise. Examples: {}; {"recommendations": 20, "checks": true} for every row.`}, s.score)
}

type scoreIn struct {
	Recommendations int  `json:"recommendations,omitempty" jsonschema:"how many, at most 50 (default 5)"`
	Checks          bool `json:"checks,omitempty" jsonschema:"also every row of the rubric with its result"`
}

type scoreOut struct {
	Service         string              `json:"service"`
	Score           int                 `json:"score" jsonschema:"0 to 100"`
	Grade           string              `json:"grade"`
	Uncapped        int                 `json:"uncapped" jsonschema:"what it would be without caps"`
	MeasuredPercent int                 `json:"measured_percent" jsonschema:"how much of what counts was measured"`
	Provisional     bool                `json:"provisional" jsonschema:"too little is measured to rely on it"`
	At              string              `json:"at"`
	Rubric          string              `json:"rubric"`
	Caps            []string            `json:"caps" jsonschema:"what keeps the score down whatever else is well"`
	FIPS            string              `json:"fips,omitempty" jsonschema:"in FIPS 140-3 mode: the module, and whether only approved suites and groups are offered"`
	Categories      []categoryOut       `json:"categories"`
	Recommendations []recommendationOut `json:"recommendations" jsonschema:"best first"`
	More            int                 `json:"recommendations_more" jsonschema:"how many more there are"`
	Checks          []checkRowOut       `json:"checks,omitempty"`
}

type categoryOut struct {
	ID     string  `json:"id"`
	Name   string  `json:"name"`
	Points float64 `json:"points"`
	Of     float64 `json:"of"`
}

type recommendationOut struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Gain    int    `json:"gain" jsonschema:"points that the score rises"`
	Result  string `json:"result"`
	Fix     string `json:"fix"`
	Command string `json:"command,omitempty" jsonschema:"to type as it stands"`
	Config  string `json:"config,omitempty" jsonschema:"for tlsmcp.toml"`
	Reason  string `json:"reason,omitempty"`
}

type checkRowOut struct {
	ID       string  `json:"id"`
	Category string  `json:"category"`
	Title    string  `json:"title"`
	Result   string  `json:"result" jsonschema:"pass, partial, fail, unknown or n/a"`
	Points   float64 `json:"points"`
	Weight   int     `json:"weight"`
	Reason   string  `json:"reason"`
	Evidence string  `json:"evidence,omitempty"`
}

// scoreReport asks the sidecar for its score.
func (s *Server) scoreReport(ctx context.Context) (*score.Report, error) {
	r, err := s.o.Client.GetScore(ctx, &controlv1.GetScoreRequest{})
	if err != nil {
		return nil, err
	}
	rep := &score.Report{}
	if err := hub.FromStruct(r.GetReport(), rep); err != nil {
		return nil, fmt.Errorf("read the score: %w", err)
	}
	if rep.SchemaVersion != score.ReportSchema {
		return nil, refused("other_version", "the person installs the tlsmcp that came with the daemon, and restarts both", "the daemon's score has version %d and this program knows %d", rep.SchemaVersion, score.ReportSchema)
	}
	return rep, nil
}

func (s *Server) score(ctx context.Context, in scoreIn) (*answer[scoreOut], error) {
	rep, err := s.scoreReport(ctx)
	if err != nil {
		return nil, err
	}
	out := scoreOut{Service: rep.Service, Score: rep.Score, Grade: rep.Grade, Uncapped: rep.Uncapped, MeasuredPercent: rep.MeasuredPercent, Provisional: rep.Provisional,
		At: rep.At.UTC().Format(time.RFC3339), Rubric: rep.Rubric.Version, FIPS: clean(rep.FIPS(), 500), Caps: []string{}, Categories: []categoryOut{}, Recommendations: []recommendationOut{}}
	for _, c := range rep.Caps {
		out.Caps = append(out.Caps, strings.TrimSpace(fmt.Sprintf("%s at most %d: %s", c.ID, c.At, clean(c.When, 300))))
	}
	for _, c := range rep.Categories {
		out.Categories = append(out.Categories, categoryOut{c.ID, c.Name, float64(c.Points) / 100, float64(c.Of) / 100})
	}
	reasons := map[string]string{}
	for _, c := range rep.Checks {
		reasons[c.ID] = clean(c.Reason, 500)
		if in.Checks {
			out.Checks = append(out.Checks, checkRowOut{c.ID, c.Category, c.Title, string(c.Result), float64(c.Points) / 100, c.Weight, clean(c.Reason, 500), clean(c.Evidence, 500)})
		}
	}
	most := min(max(in.Recommendations, 0), 50)
	if most == 0 {
		most = 5
	}
	for _, r := range rep.Recommendations[:min(len(rep.Recommendations), most)] {
		out.Recommendations = append(out.Recommendations, recommendationOut{r.ID, r.Title, r.Gain, string(r.Result), clean(r.Fix.Text, 1000), clean(r.Fix.Command, 500), clean(r.Fix.Config, 500), reasons[r.ID]})
	}
	out.More = len(rep.Recommendations) - len(out.Recommendations)
	return &answer[scoreOut]{out, out.text()}, nil
}

func (o *scoreOut) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s scores %d of 100 (grade %s); %d%% of what counts was measured.\n", o.Service, o.Score, o.Grade, o.MeasuredPercent)
	if o.Provisional {
		b.WriteString("It is provisional: too little is measured.\n")
	}
	for _, c := range o.Caps {
		fmt.Fprintf(&b, "Cap: %s\n", c)
	}
	if o.FIPS != "" {
		fmt.Fprintf(&b, "%s.\n", o.FIPS)
	}
	for _, c := range o.Categories {
		fmt.Fprintf(&b, "%s: %g of %g\n", c.Name, c.Points, c.Of)
	}
	for i, r := range o.Recommendations {
		fmt.Fprintf(&b, "%d. %s (+%d): %s", i+1, r.Title, r.Gain, r.Fix)
		if r.Command != "" {
			fmt.Fprintf(&b, " Command: %s", r.Command)
		}
		if r.Config != "" {
			fmt.Fprintf(&b, " Setting: %s", r.Config)
		}
		fmt.Fprintf(&b, " [%s: %s]\n", r.Result, r.Reason)
	}
	if o.More > 0 {
		fmt.Fprintf(&b, "%d more; ask with recommendations: 50.\n", o.More)
	}
	for _, c := range o.Checks {
		fmt.Fprintf(&b, "- %s %s: %s (%g of %d). %s\n", c.ID, c.Title, c.Result, c.Points, c.Weight, c.Reason)
	}
	return strings.TrimSpace(b.String())
}

// steady is what of a resource counts as a change: a score that was computed
// again with the same outcome is none.
func steady(content any) any {
	rep, ok := content.(*score.Report)
	if !ok {
		return content
	}
	type row struct {
		ID     string
		Result score.Result
		Points int
	}
	rows := []row{}
	for _, c := range rep.Checks {
		rows = append(rows, row{c.ID, c.Result, c.Points})
	}
	return []any{rep.Score, rep.Grade, rep.Caps, rows}
}
