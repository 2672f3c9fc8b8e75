package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/score"
)

// showScore shows how orders is judged, and what it lacks. The grade is what it
// is: a system that was set up in a second has its root's key at hand, and nobody
// has tested its alerts.
func (q *quick) showScore(ctx context.Context) error {
	r, took, err := q.orders.score(ctx)
	if err != nil {
		return err
	}
	q.show.done("orders", fmt.Sprintf("%d of 100, grade %s", r.Score, r.Grade), took)
	var lacks []string
	for _, rec := range r.Recommendations {
		lacks = append(lacks, rec.ID+" "+strings.ToLower(rec.Title))
	}
	if len(lacks) > 0 {
		q.show.notes("It lacks: " + strings.Join(lacks, ", ") + ".\ndocs/score.md has the steps to an A.")
	}
	return nil
}

// score is a sidecar's score, once its Hub has said what it knows.
func (c *sidecar) score(ctx context.Context) (*score.Report, time.Duration, error) {
	started := time.Now()
	r := new(score.Report)
	for deadline := started.Add(stepPatience); ; {
		res, err := ask(ctx, &c.ctl, (*controlclient.Client).GetScore, &controlv1.GetScoreRequest{})
		if err != nil {
			return nil, 0, fmt.Errorf("the score of %s: %w", c.name, err)
		}
		if err := fromStruct(res.GetReport(), r); err != nil {
			return nil, 0, fmt.Errorf("the score of %s: %w", c.name, err)
		}
		if r.Facts.CA != nil && r.Facts.Canary != nil {
			return r, time.Since(started), nil
		}
		if time.Now().After(deadline) {
			return nil, 0, fmt.Errorf("the score of %s: the Hub has not said what it knows within %s", c.name, stepPatience)
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		*r = score.Report{}
	}
}
