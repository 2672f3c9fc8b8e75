package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	metaAlertTested = "alert_tested_at"
	// alertPatience is how long a test alert is waited for.
	alertPatience = 12 * time.Second
)

// alert tells the log, the events and the webhooks of something that somebody
// should be woken for. service is empty when it is about the Hub itself.
func (s *Service) alert(ctx context.Context, service, code, detail string, attributes map[string]string) error {
	args := []any{event.KeyCode, code, event.KeyDetail, detail}
	if service != "" {
		args = append(args, event.KeyService, service)
	}
	s.log.Warn("alert", args...)
	e := store.Event{ID: store.NewID(), Time: s.now(), ServiceID: service, Kind: store.KindAlert, Outcome: code, Detail: detail, Attributes: maps.Clone(attributes)}
	_, err := s.store.AddEvents(ctx, []store.Event{e})
	return err
}

// TestAlert sends a test alert. That it arrived is noted for the score.
func (s *Service) TestAlert(ctx context.Context, _ *hubv1.TestAlertRequest) (*hubv1.TestAlertResponse, error) {
	actor, err := authorize(ctx, testAlert, "")
	if err != nil {
		return nil, err
	}
	s.log.Warn("alert", event.KeyCode, "test", event.KeyDetail, "a test, asked for by "+actor.Name)
	sent, err := s.store.TestAlert(ctx, map[string]any{"alert": "test", "detail": "a test, asked for by " + actor.Name, "test": true})
	if err != nil {
		return nil, err
	}
	if len(sent) == 0 {
		return nil, problem.New(problem.Conflict, "no_webhook", "tlsmcp hub webhook create URL --topic alert makes one", "no webhook takes alerts")
	}
	out := &hubv1.TestAlertResponse{}
	for _, d := range sent {
		out.Deliveries = append(out.Deliveries, &hubv1.AlertDelivery{WebhookId: d.WebhookID, Url: d.URL, Error: "it has not been tried yet"})
	}
	if err := s.awaitDeliveries(ctx, sent, out.Deliveries); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(out.Deliveries, (*hubv1.AlertDelivery).GetDelivered) {
		return out, nil
	}
	return out, s.store.SetMeta(ctx, metaAlertTested, s.now().UTC().Format(time.RFC3339))
}

// awaitDeliveries looks until each was delivered or has failed once.
func (s *Service) awaitDeliveries(ctx context.Context, sent []store.Delivery, said []*hubv1.AlertDelivery) error {
	ctx, cancel := context.WithTimeout(ctx, alertPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		open := 0
		for i, d := range sent {
			why, waiting, err := s.store.Undelivered(ctx, d.ID)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				return nil
			case err != nil:
				return err
			case !waiting:
				said[i].Delivered, said[i].Error = true, ""
			case why != "":
				said[i].Error = why
			default:
				open++
			}
		}
		if open == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// timeOf reads a time that the store keeps for the score; zero: never.
func (s *Service) timeOf(ctx context.Context, key string) (time.Time, error) {
	text, err := s.store.Meta(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, text)
}
