package daemon

import (
	"strconv"
	"time"

	"cyphers.ai/tlsmcp/daemon/mcpgate"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/metric"
	"cyphers.ai/tlsmcp/pkg/version"
)

// metrics counts what happens. Names follow Prometheus' conventions: base
// units, _total for counters, _timestamp_seconds for moments.
type metrics struct {
	registry      *metric.Registry
	accepted      *metric.Counter
	refused       *metric.Counters
	closed        *metric.Counters
	handshake     *metric.Histogram
	received      *metric.Counter
	sent          *metric.Counter
	requests      *metric.Counters
	eventsDropped *metric.Counter
	mcpCalls      *metric.Counters
	mcpDuration   *metric.Histograms

	byProtocol map[string]*requestMetrics // fixed at start, so that no request takes a lock
}

// requestMetrics are those of one protocol, resolved once.
type requestMetrics struct {
	byClass [6]*metric.Counter
	latency *metric.Histogram
}

func newMetrics(d *Daemon) *metrics {
	r := metric.New()
	m := &metrics{
		registry:      r,
		accepted:      r.Counter("tlsmcp_connections_accepted_total", "Client connections that were let in."),
		refused:       r.Counters("tlsmcp_connections_refused_total", "Client connections that were turned away, by reason.", "reason"),
		closed:        r.Counters("tlsmcp_connections_closed_total", "Client connections that ended, by reason.", "reason"),
		received:      r.Counter("tlsmcp_received_bytes_total", "Plain bytes from clients, counted when their connection ends."),
		sent:          r.Counter("tlsmcp_sent_bytes_total", "Plain bytes to clients, counted when their connection ends."),
		requests:      r.Counters("tlsmcp_requests_total", "Requests answered, by protocol and class of status.", "protocol", "code"),
		eventsDropped: r.Counter("tlsmcp_events_dropped_total", "Log lines about connections and calls dropped because the log was too slow."),
		mcpCalls:      r.Counters("tlsmcp_mcp_calls_total", "Calls of agents to the MCP server, by method and outcome.", "method", "outcome"),
		mcpDuration: r.Histograms("tlsmcp_mcp_call_duration_seconds", "From a call to its answer, the server's time included.",
			[]float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60}, "method"),
		handshake: r.Histogram("tlsmcp_handshake_duration_seconds", "From accept to the decision to let in.",
			[]float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}),
		byProtocol: map[string]*requestMetrics{},
	}
	latency := r.Histograms("tlsmcp_request_duration_seconds", "From the request's head to the end of the response, the backend's time included.",
		[]float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}, "protocol")
	for _, protocol := range []string{"http/1.1", "h2", "websocket"} {
		r := &requestMetrics{latency: latency.With(protocol)}
		for class := 1; class < len(r.byClass); class++ {
			r.byClass[class] = m.requests.With(protocol, strconv.Itoa(class)+"xx")
		}
		m.byProtocol[protocol] = r
	}
	r.Collect(d.collect)
	r.Runtime()
	return m
}

// Request implements proxy.Observer.
func (m *metrics) Request(protocol string, status int, took time.Duration) {
	r := m.byProtocol[protocol]
	r.byClass[min(max(status/100, 1), 5)].Inc()
	r.latency.Observe(took.Seconds())
}

func (m *metrics) event(e event.Connection) {
	switch e.Kind {
	case event.Accepted:
		m.accepted.Inc()
		m.handshake.Observe(e.Duration.Seconds())
	case event.Refused:
		m.refused.With(string(e.Reason)).Inc()
	case event.Closed:
		m.closed.With(string(e.Reason)).Inc()
		m.received.Add(e.BytesIn)
		m.sent.Add(e.BytesOut)
	}
}

// call counts one call. A method that an agent made up has no series of its own.
func (m *metrics) call(c event.Call) {
	method := mcpgate.MethodLabel(c.Method)
	m.mcpCalls.With(method, string(c.Outcome)).Inc()
	if c.Outcome != event.CallRefused {
		m.mcpDuration.With(method).Observe(c.Duration.Seconds())
	}
}

// collect reads the state of the rooms when it is asked for.
func (d *Daemon) collect(p *metric.Page) {
	open, certificates := d.conns.Len()
	p.Gauge("tlsmcp_connections_open", "Client connections that are let in.", float64(open))
	p.Gauge("tlsmcp_connections_handshaking", "Client connections that are not decided yet.", float64(max(0, d.edge.Open()-open)))
	p.Gauge("tlsmcp_identities_connected", "Client certificates with a connection.", float64(certificates))

	cert, health := d.keys.Current(), d.keys.Health()
	if cert != nil {
		p.Gauge("tlsmcp_server_certificate_not_after_timestamp_seconds", "When the server's certificate expires.", float64(cert.Leaf.NotAfter.Unix()))
		p.Gauge("tlsmcp_server_certificate_loaded_timestamp_seconds", "When the server's certificate began to serve.", float64(cert.LoadedAt.Unix()))
	}
	p.Gauge("tlsmcp_server_certificate_ok", "1 when the certificate files are what serves.", truth(health.Err == nil))
	p.Counter("tlsmcp_server_certificate_swaps_total", "Server certificates taken into service.", float64(health.Swaps))
	p.Counter("tlsmcp_server_certificate_failures_total", "Times that the certificate files could not be taken.", float64(health.Fails))

	if d.link != nil {
		st := d.link.State()
		p.Gauge("tlsmcp_hub_connected", "1 when the Hub's revocation stream is up.", truth(st.Connected))
		p.Gauge("tlsmcp_hub_revocation_sequence", "The last entry of the Hub's revocation log that is in force.", float64(st.Sequence))
		p.Gauge("tlsmcp_hub_signed_timestamp_seconds", "When the Hub last spoke about its revocation log; 0 before it did.", float64(max(0, st.SignedAt.Unix())))
	}

	if g := d.gateway; g != nil {
		p.Gauge("tlsmcp_mcp_sessions_open", "Sessions of agents with the MCP server.", float64(g.Sessions()))
		p.Gauge("tlsmcp_mcp_children", "MCP servers that are running, with backend.protocol mcp-stdio.", float64(g.Children()))
		p.Gauge("tlsmcp_mcp_tools_changed", "Tools whose definition is another than the approved one.", float64(g.Changed()))
	}

	d.mu.Lock()
	reloaded, at := d.reloaded, d.at
	d.mu.Unlock()
	p.Gauge("tlsmcp_config_last_reload_successful", "1 when the last reload was taken.", truth(reloaded == nil))
	p.Gauge("tlsmcp_config_last_reload_timestamp_seconds", "When the configuration was last read.", float64(at.Unix()))
	d.collectSources(p)
	d.scores.collect(p)

	v := version.Get()
	p.Gauge("tlsmcp_build_info", "The build that is running.", 1, "version", v.Version, "commit", v.Commit, "goversion", v.Go)
}

// collectSources tells of what trust is built from.
func (d *Daemon) collectSources(p *metric.Page) {
	for _, h := range d.trust.Health() {
		p.Gauge("tlsmcp_trust_source_ok", "1 when a CA file or revocation source was last read without an error.", truth(h.OK), "source", h.Source)
		if h.NextUpdate.IsZero() {
			continue
		}
		p.Gauge("tlsmcp_revocation_entries", "Revoked serial numbers that a source holds.", float64(h.Entries), "source", h.Source)
		p.Gauge("tlsmcp_revocation_next_update_timestamp_seconds", "When a source's list must be replaced.", float64(h.NextUpdate.Unix()), "source", h.Source)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
