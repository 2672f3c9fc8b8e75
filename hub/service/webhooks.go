package service

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/netguard"
	"cyphers.ai/tlsmcp/pkg/text"
)

// CreateWebhook adds an address that is told of changes.
func (s *Service) CreateWebhook(ctx context.Context, r *hubv1.CreateWebhookRequest) (*hubv1.Webhook, error) {
	if _, err := authorize(ctx, administrate, ""); err != nil {
		return nil, err
	}
	u, err := url.Parse(r.GetUrl())
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, problem.New(problem.Invalid, "bad_url", "", "%q is not an http or https URL without a user", r.GetUrl())
	}
	for _, t := range r.GetTopics() {
		if !slices.Contains([]string{"revocation", "certificate", "policy", "alert"}, t) {
			return nil, problem.New(problem.Invalid, "bad_topic", "", "topic %q is not known: it is revocation, certificate, policy or alert", t)
		}
	}
	w := store.Webhook{ID: store.NewID(), URL: u.String(), Topics: r.GetTopics(), Secret: r.GetSecret(), CreatedAt: s.now()}
	switch {
	case w.Secret == "":
		var b [32]byte
		_, _ = rand.Read(b[:]) // it never fails
		w.Secret = hex.EncodeToString(b[:])
	case len(w.Secret) < 16:
		return nil, problem.New(problem.Invalid, "weak_secret", "leave it out to have one made", "a secret of %s is too short; at least 16", text.Plural(len(w.Secret), "character"))
	}
	if err := s.store.AddWebhook(ctx, w); err != nil {
		return nil, err
	}
	s.note(ctx, "webhook_created", store.Event{Detail: w.URL})
	out := webhook(&w)
	out.Secret = w.Secret
	return out, nil
}

func webhook(w *store.Webhook) *hubv1.Webhook {
	return &hubv1.Webhook{Id: w.ID, Url: w.URL, Topics: w.Topics, CreatedAt: hub.Stamp(w.CreatedAt), Delivered: w.Delivered, Pending: w.Pending, LastError: w.LastError}
}

// ListWebhooks lists webhooks without their secrets.
func (s *Service) ListWebhooks(ctx context.Context, _ *hubv1.ListWebhooksRequest) (*hubv1.ListWebhooksResponse, error) {
	if _, err := authorize(ctx, administrate, ""); err != nil {
		return nil, err
	}
	rows, err := s.store.Webhooks(ctx)
	if err != nil {
		return nil, err
	}
	out := &hubv1.ListWebhooksResponse{}
	for i := range rows {
		out.Webhooks = append(out.Webhooks, webhook(&rows[i]))
	}
	return out, nil
}

// DeleteWebhook ends a webhook.
func (s *Service) DeleteWebhook(ctx context.Context, r *hubv1.DeleteWebhookRequest) (*hubv1.DeleteWebhookResponse, error) {
	if _, err := authorize(ctx, administrate, ""); err != nil {
		return nil, err
	}
	if err := s.store.DeleteWebhook(ctx, r.GetId()); err != nil {
		return nil, storeError(err, "webhook "+r.GetId())
	}
	s.note(ctx, "webhook_deleted", store.Event{Detail: r.GetId()})
	return &hubv1.DeleteWebhookResponse{}, nil
}

const (
	webhookTimeout = 10 * time.Second
	webhookLease   = time.Minute
	webhookGiveUp  = 24 * time.Hour
)

// sendWebhooks delivers what the store has laid out.
func (s *Service) sendWebhooks(ctx context.Context) {
	client := s.webhookClient()
	s.follow(ctx, store.Deliveries, time.Second, func(ctx context.Context) error {
		due, err := s.store.ClaimDeliveries(ctx, 32, webhookLease)
		if err != nil {
			return err
		}
		errs := make([]error, len(due))
		var tasks sync.WaitGroup
		for i, d := range due {
			tasks.Go(func() { errs[i] = s.deliver(ctx, client, d) })
		}
		tasks.Wait()
		return errors.Join(errs...)
	})
}

// deliver sends one message. What fails is sent again, after longer and longer,
// for a day.
func (s *Service) deliver(ctx context.Context, client *http.Client, d store.Delivery) error {
	err := post(ctx, client, d, s.now())
	switch {
	case ctx.Err() != nil:
		return nil // the lease runs out, and another replica or the next start sends it
	case err == nil:
		return s.store.Delivered(ctx, d)
	}
	s.log.Warn("webhook not delivered", event.KeyURL, d.URL, event.KeyCount, d.Attempts+1, event.KeyError, err)
	if s.now().Sub(d.CreatedAt) > webhookGiveUp {
		return s.store.GaveUp(ctx, d, err.Error())
	}
	wait := min(time.Hour, time.Second<<min(d.Attempts, 12))
	return s.store.Retry(ctx, d, s.now().Add(wait), err.Error())
}

// post sends a message with its signature: HMAC-SHA256 over the time, a dot and
// the body, so that neither can be changed and an old one can be told.
func post(ctx context.Context, client *http.Client, d store.Delivery, now time.Time) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(d.Payload))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(d.Secret))
	fmt.Fprintf(mac, "%s.%s", at, d.Payload)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tlsmcp-hub")
	req.Header.Set("Tlsmcp-Delivery", d.ID)
	req.Header.Set("Tlsmcp-Topic", d.Topic)
	req.Header.Set("Tlsmcp-Signature", "t="+at+",v1="+hex.EncodeToString(mac.Sum(nil)))
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // only the status says something
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", res.Status)
	}
	return nil
}

// webhookClient follows no redirect, uses no proxy, and does not let a webhook
// be used to reach what is private to the Hub's host.
func (s *Service) webhookClient() *http.Client {
	dialer := &net.Dialer{Timeout: webhookTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !s.o.WebhookPrivate && !netguard.Public(at.Addr()) {
			return fmt.Errorf("%s is not a public address; serve --webhook-private allows it", at.Addr())
		}
		return nil
	}}
	return &http.Client{
		Timeout:       webhookTimeout,
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: webhookTimeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
