package daemon

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cyphers.ai/tlsmcp/daemon/mcpgate"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/version"
)

// metrics counts what happens. Names follow Prometheus' conventions: base
// units, _total for counters, _timestamp_seconds for moments.
type metrics struct {
	registry      *prometheus.Registry
	accepted      prometheus.Counter
	refused       *prometheus.CounterVec
	closed        *prometheus.CounterVec
	handshake     prometheus.Histogram
	received      prometheus.Counter
	sent          prometheus.Counter
	requests      *prometheus.CounterVec
	eventsDropped prometheus.Counter
	mcpCalls      *prometheus.CounterVec
	mcpDuration   *prometheus.HistogramVec

	byProtocol map[string]*requestMetrics // fixed at start, so that no request takes a lock
}

// requestMetrics are those of one protocol, resolved once.
type requestMetrics struct {
	byClass [6]prometheus.Counter
	latency prometheus.Observer
}

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		registry:      prometheus.NewRegistry(),
		accepted:      counter("tlsmcp_connections_accepted_total", "Client connections that were let in."),
		refused:       counterVec("tlsmcp_connections_refused_total", "Client connections that were turned away, by reason.", "reason"),
		closed:        counterVec("tlsmcp_connections_closed_total", "Client connections that ended, by reason.", "reason"),
		received:      counter("tlsmcp_received_bytes_total", "Plain bytes from clients, counted when their connection ends."),
		sent:          counter("tlsmcp_sent_bytes_total", "Plain bytes to clients, counted when their connection ends."),
		requests:      counterVec("tlsmcp_requests_total", "Requests answered, by protocol and class of status.", "protocol", "code"),
		eventsDropped: counter("tlsmcp_events_dropped_total", "Log lines about connections and calls dropped because the log was too slow."),
		mcpCalls:      counterVec("tlsmcp_mcp_calls_total", "Calls of agents to the MCP server, by method and outcome.", "method", "outcome"),
		mcpDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tlsmcp_mcp_call_duration_seconds", Help: "From a call to its answer, the server's time included.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60},
		}, []string{"method"}),
		handshake: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tlsmcp_handshake_duration_seconds", Help: "From accept to the decision to let in.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		byProtocol: map[string]*requestMetrics{},
	}
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "tlsmcp_request_duration_seconds", Help: "From the request's head to the end of the response, the backend's time included.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
	}, []string{"protocol"})
	for _, protocol := range []string{"http/1.1", "h2", "websocket"} {
		r := &requestMetrics{latency: latency.WithLabelValues(protocol)}
		for class := 1; class < len(r.byClass); class++ {
			r.byClass[class] = m.requests.WithLabelValues(protocol, strconv.Itoa(class)+"xx")
		}
		m.byProtocol[protocol] = r
	}
	m.registry.MustRegister(m.accepted, m.refused, m.closed, m.received, m.sent, m.requests, m.eventsDropped, m.handshake, latency, m.mcpCalls, m.mcpDuration,
		stateCollector{d})
	m.registerRuntime()
	return m
}

// registerRuntime adds the metrics of Go and of the process. They come from
// where they are deprecated, because the new place links database/sql.
func (m *metrics) registerRuntime() {
	//lint:ignore SA1019 see above
	m.registry.MustRegister(prometheus.NewGoCollector())
	//lint:ignore SA1019 see above
	m.registry.MustRegister(prometheus.NewProcessCollector(prometheus.ProcessCollectorOpts{}))
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
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
		m.refused.WithLabelValues(string(e.Reason)).Inc()
	case event.Closed:
		m.closed.WithLabelValues(string(e.Reason)).Inc()
		m.received.Add(float64(e.BytesIn))
		m.sent.Add(float64(e.BytesOut))
	}
}

// call counts one call. A method that an agent made up has no series of its own.
func (m *metrics) call(c event.Call) {
	method := mcpgate.MethodLabel(c.Method)
	m.mcpCalls.WithLabelValues(method, string(c.Outcome)).Inc()
	if c.Outcome != event.CallRefused {
		m.mcpDuration.WithLabelValues(method).Observe(c.Duration.Seconds())
	}
}

// stateCollector reads the state of the rooms when it is asked for.
type stateCollector struct{ d *Daemon }

// Describe sends nothing: which series there are depends on the sources.
func (stateCollector) Describe(chan<- *prometheus.Desc) {}

func (s stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, v)
	}
	total := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, v)
	}
	open, certificates := s.d.conns.Len()
	gauge("tlsmcp_connections_open", "Client connections that are let in.", float64(open))
	gauge("tlsmcp_connections_handshaking", "Client connections that are not decided yet.", float64(max(0, s.d.edge.Open()-open)))
	gauge("tlsmcp_identities_connected", "Client certificates with a connection.", float64(certificates))

	cert, health := s.d.keys.Current(), s.d.keys.Health()
	if cert != nil {
		gauge("tlsmcp_server_certificate_not_after_timestamp_seconds", "When the server's certificate expires.", float64(cert.Leaf.NotAfter.Unix()))
		gauge("tlsmcp_server_certificate_loaded_timestamp_seconds", "When the server's certificate began to serve.", float64(cert.LoadedAt.Unix()))
	}
	gauge("tlsmcp_server_certificate_ok", "1 when the certificate files are what serves.", truth(health.Err == nil))
	total("tlsmcp_server_certificate_swaps_total", "Server certificates taken into service.", float64(health.Swaps))
	total("tlsmcp_server_certificate_failures_total", "Times that the certificate files could not be taken.", float64(health.Fails))

	if s.d.link != nil {
		st := s.d.link.State()
		gauge("tlsmcp_hub_connected", "1 when the Hub's revocation stream is up.", truth(st.Connected))
		gauge("tlsmcp_hub_revocation_sequence", "The last entry of the Hub's revocation log that is in force.", float64(st.Sequence))
		gauge("tlsmcp_hub_signed_timestamp_seconds", "When the Hub last spoke about its revocation log; 0 before it did.", float64(max(0, st.SignedAt.Unix())))
	}

	if g := s.d.gateway; g != nil {
		gauge("tlsmcp_mcp_sessions_open", "Sessions of agents with the MCP server.", float64(g.Sessions()))
		gauge("tlsmcp_mcp_children", "MCP servers that are running, with backend.protocol mcp-stdio.", float64(g.Children()))
		gauge("tlsmcp_mcp_tools_changed", "Tools whose definition is another than the approved one.", float64(g.Changed()))
	}

	s.d.mu.Lock()
	reloaded, at := s.d.reloaded, s.d.at
	s.d.mu.Unlock()
	gauge("tlsmcp_config_last_reload_successful", "1 when the last reload was taken.", truth(reloaded == nil))
	gauge("tlsmcp_config_last_reload_timestamp_seconds", "When the configuration was last read.", float64(at.Unix()))
	s.collectSources(out)

	v := version.Get()
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("tlsmcp_build_info", "The build that is running.", nil,
		prometheus.Labels{"version": v.Version, "commit": v.Commit, "goversion": v.Go}), prometheus.GaugeValue, 1)
}

// collectSources tells of what trust is built from.
func (s stateCollector) collectSources(out chan<- prometheus.Metric) {
	ok := prometheus.NewDesc("tlsmcp_trust_source_ok", "1 when a CA file or revocation source was last read without an error.", []string{"source"}, nil)
	entries := prometheus.NewDesc("tlsmcp_revocation_entries", "Revoked serial numbers that a source holds.", []string{"source"}, nil)
	next := prometheus.NewDesc("tlsmcp_revocation_next_update_timestamp_seconds", "When a source's list must be replaced.", []string{"source"}, nil)
	for _, h := range s.d.trust.Health() {
		out <- prometheus.MustNewConstMetric(ok, prometheus.GaugeValue, truth(h.OK), h.Source)
		if h.NextUpdate.IsZero() {
			continue
		}
		out <- prometheus.MustNewConstMetric(entries, prometheus.GaugeValue, float64(h.Entries), h.Source)
		out <- prometheus.MustNewConstMetric(next, prometheus.GaugeValue, float64(h.NextUpdate.Unix()), h.Source)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
