package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// scores: each change of a score is kept once, whoever finds it, and can be found
// by the time that it was in force.
func scores(t *testing.T, open opens) {
	ctx := t.Context()
	began := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	s := open(store.Options{})
	if _, err := s.ScoreHead(ctx, "pay"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a score is there that nobody set: %v", err)
	}
	last := ""
	for i := range 3 {
		c := &store.ScoreChange{ID: store.NewID(), ServiceID: "pay", At: began.Add(time.Duration(i) * time.Hour), Score: 80 + i, Grade: "B", Rubric: "r/1",
			Delta: 1, Reason: "why", Rows: []store.ScoreRow{{ID: "M1", Cause: "facts", From: "fail", To: "pass", Points: 800}}, Report: fmt.Appendf(nil, `{"score":%d}`, 80+i)}
		h := store.ScoreHead{ServiceID: "pay", Last: last, At: c.At, Score: c.Score, Grade: c.Grade, NodeID: "n1"}
		// Several replicas find the same change; one keeps it.
		var kept, conflicts int
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				mine := *c
				mine.ID = store.NewID()
				err := s.SetScore(ctx, h, &mine)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					kept, last = kept+1, mine.ID
				case errors.Is(err, store.ErrConflict):
					conflicts++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if kept != 1 || conflicts != 3 {
			t.Fatalf("change %d was kept %d times, and refused %d times", i, kept, conflicts)
		}
	}
	head := must(s.ScoreHead(ctx, "pay"))(t)
	if head.Last != last || head.Score != 82 || !head.At.Equal(began.Add(2*time.Hour)) || head.NodeID != "n1" || head.Silent {
		t.Errorf("the head is %+v", head)
	}
	head.Silent, head.Score = true, 0
	if err := s.SetScore(ctx, head, nil); err != nil {
		t.Fatal(err)
	}
	if h := must(s.ScoreHead(ctx, "pay"))(t); !h.Silent || h.Last != last {
		t.Errorf("without a change the head is %+v", h)
	}
	for at, want := range map[time.Duration]string{-time.Hour: `{"score":80}`, 0: `{"score":80}`, 90 * time.Minute: `{"score":81}`, 9 * time.Hour: `{"score":82}`} {
		if c := must(s.ScoreAt(ctx, "pay", began.Add(at)))(t); string(c.Report) != want || len(c.Rows) != 1 || c.Rows[0].Points != 800 {
			t.Errorf("%s after the beginning: %s, %+v", at, c.Report, c.Rows)
		}
	}
	if _, err := s.ScoreAt(ctx, "web", began); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a service that was never judged: %v", err)
	}
	page, token, err := s.ScoreChanges(ctx, store.ScoreFilter{ServiceID: "pay", PageSize: 2})
	if err != nil || len(page) != 2 || page[0].Score != 82 || token == "" {
		t.Fatalf("the first page is %+v, %v", page, err)
	}
	if page, token, err = s.ScoreChanges(ctx, store.ScoreFilter{ServiceID: "pay", PageSize: 2, PageToken: token}); err != nil || len(page) != 1 || page[0].Score != 80 || token != "" {
		t.Errorf("the last page is %+v, %v", page, err)
	}
	if page, _, err = s.ScoreChanges(ctx, store.ScoreFilter{Scope: "web*", PageSize: 2}); err != nil || len(page) != 0 {
		t.Errorf("another scope sees %+v, %v", page, err)
	}
	if n, err := s.PruneScores(ctx, began.Add(24*time.Hour)); err != nil || n != 2 {
		t.Errorf("pruned %d, %v: the last one stays", n, err)
	}
	if c, err := s.ScoreChange(ctx, last); err != nil || c.Score != 82 {
		t.Errorf("after pruning %+v, %v", c, err)
	}
}

// facts: those of each origin are replaced, and those of a sidecar that left are
// not heard any more.
func facts(t *testing.T, open opens) {
	ctx := t.Context()
	s := open(store.Options{})
	node := store.Node{ID: "n1", ServiceID: "pay", UID: -1, EnrolledAt: time.Now()}
	if err := s.Enrol(ctx, node, cert("pay"), ""); err != nil {
		t.Fatal(err)
	}
	put := func(origin, text string) {
		t.Helper()
		if err := s.PutFacts(ctx, store.Facts{ServiceID: "pay", Origin: origin, JSON: []byte(text), ReceivedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	put("n1", "1")
	put("n1", "2")
	put(store.OriginScan, "3")
	put("stranger", "4")
	found := must(s.Facts(ctx, "pay"))(t)
	if len(found) != 2 || found[0].Origin != "n1" || string(found[0].JSON) != "2" || string(found[1].JSON) != "3" {
		t.Errorf("the facts are %+v", found)
	}
	if all := must(s.ScoredServices(ctx))(t); len(all) != 1 || all[0] != "pay" {
		t.Errorf("services: %q", all)
	}
	if _, err := s.RemoveNode(ctx, "n1", "spiffe://test/node/pay/n1", "test"); err != nil {
		t.Fatal(err)
	}
	if found = must(s.Facts(ctx, "pay"))(t); len(found) != 1 || found[0].Origin != store.OriginScan {
		t.Errorf("after the sidecar left: %+v", found)
	}
	if all := must(s.ScoredServices(ctx))(t); len(all) != 0 {
		t.Errorf("services without a sidecar: %q", all)
	}
}

// alerts: an event of that kind reaches the webhooks that take alerts, once; a
// canary is no news to anybody.
func alerts(t *testing.T, open opens) {
	ctx := t.Context()
	s := open(store.Options{})
	if err := s.AddWebhook(ctx, store.Webhook{ID: "w1", URL: "http://a", Topics: []string{"alert"}, Secret: "s", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddWebhook(ctx, store.Webhook{ID: "w2", URL: "http://b", Secret: "s", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	alert := store.Event{ID: "e1", NodeID: "n1", ServiceID: "pay", Kind: store.KindAlert, Outcome: "tool_changed", Detail: "d", Time: time.Now(), Attributes: map[string]string{"tool": "x"}}
	for range 2 { // a report that is repeated
		if _, err := s.AddEvents(ctx, []store.Event{alert, {ID: "e2", Kind: "accepted", Time: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	c := cert("0123456789abcdef")
	c.Type, c.Names = store.TypeCanary, nil
	add(t, s, c)
	if _, _, err := s.Revoke(ctx, c.ID, revlog.CessationOfOperation, store.ByCanary); err != nil {
		t.Fatal(err)
	}
	due := must(s.ClaimDeliveries(ctx, 10, time.Minute))(t)
	if len(due) != 2 || due[0].Topic != "alert" || due[1].Topic != "alert" {
		t.Fatalf("to be delivered: %+v", due)
	}
	list, _, err := s.Certificates(ctx, store.CertificateFilter{Now: time.Now(), PageSize: 10})
	if err != nil || len(list) != 0 {
		t.Errorf("a canary is listed: %+v, %v", list, err)
	}
	if list, _, err = s.Certificates(ctx, store.CertificateFilter{Type: store.TypeCanary, Now: time.Now(), PageSize: 10}); err != nil || len(list) != 1 {
		t.Errorf("a canary is not found when asked for: %+v, %v", list, err)
	}
	laidOut := must(s.TestAlert(ctx, map[string]any{"alert": "test"}))(t)
	if len(laidOut) != 2 {
		t.Fatalf("a test goes to %+v", laidOut)
	}
	due = must(s.ClaimDeliveries(ctx, 10, time.Minute))(t)
	for i, d := range due {
		if i == 0 {
			err = s.Delivered(ctx, d)
		} else {
			err = s.Retry(ctx, d, time.Now().Add(time.Hour), "no answer")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var arrived, failed int
	for _, d := range laidOut {
		why, waiting, err := s.Undelivered(ctx, d.ID)
		switch {
		case err != nil:
			t.Fatal(err)
		case !waiting:
			arrived++
		case why == "no answer":
			failed++
		}
	}
	if arrived != 1 || failed != 1 {
		t.Errorf("%d arrived, %d failed", arrived, failed)
	}
}
