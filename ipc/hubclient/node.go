package hubclient

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
)

// Node is a client with the calls that a sidecar makes, and no others: a client
// of the whole service would make the daemon a third of a megabyte larger.
type Node struct {
	issue       *connect.Client[hubv1.IssueCertificateRequest, hubv1.Certificate]
	revocations *connect.Client[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta]
	policy      *connect.Client[hubv1.WatchPolicyRequest, hubv1.Policy]
	events      *connect.Client[hubv1.ReportEventsRequest, hubv1.ReportEventsResponse]
	trust       *connect.Client[hubv1.GetTrustRequest, hubv1.Trust]
	enroll      *connect.Client[hubv1.EnrollRequest, hubv1.EnrollResponse]
	renew       *connect.Client[hubv1.RenewNodeRequest, hubv1.EnrollResponse]
	transport   *http.Transport
}

// NewNode makes a client. It does not connect yet.
func NewNode(o Options) (*Node, error) {
	w, err := o.wire()
	if err != nil {
		return nil, err
	}
	return &Node{
		issue:       method[hubv1.IssueCertificateRequest, hubv1.Certificate](w, hubv1connect.HubServiceIssueCertificateProcedure),
		revocations: method[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta](w, hubv1connect.HubServiceWatchRevocationsProcedure),
		policy:      method[hubv1.WatchPolicyRequest, hubv1.Policy](w, hubv1connect.HubServiceWatchPolicyProcedure),
		events:      method[hubv1.ReportEventsRequest, hubv1.ReportEventsResponse](w, hubv1connect.HubServiceReportEventsProcedure),
		trust:       method[hubv1.GetTrustRequest, hubv1.Trust](w, hubv1connect.HubServiceGetTrustProcedure),
		enroll:      method[hubv1.EnrollRequest, hubv1.EnrollResponse](w, hubv1connect.HubServiceEnrollProcedure),
		renew:       method[hubv1.RenewNodeRequest, hubv1.EnrollResponse](w, hubv1connect.HubServiceRenewNodeProcedure),
		transport:   w.transport,
	}, nil
}

func method[Req, Res any](w wire, procedure string) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](w.client, w.base+procedure, connect.WithGRPC())
}

// unary makes a call with one answer.
func unary[Req, Res any](ctx context.Context, c *connect.Client[Req, Res], r *Req) (*Res, error) {
	answer, err := c.CallUnary(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// Close lets idle connections go.
func (n *Node) Close() {
	if n.transport != nil {
		n.transport.CloseIdleConnections()
	}
}

// IssueCertificate has a certificate issued.
func (n *Node) IssueCertificate(ctx context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	return unary(ctx, n.issue, r)
}

// WatchRevocations follows the revocation log.
func (n *Node) WatchRevocations(ctx context.Context) (*connect.BidiStreamForClientSimple[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta], error) {
	return n.revocations.CallBidiStreamSimple(ctx)
}

// WatchPolicy follows a service's policy.
func (n *Node) WatchPolicy(ctx context.Context, r *hubv1.WatchPolicyRequest) (*connect.ServerStreamForClient[hubv1.Policy], error) {
	return n.policy.CallServerStream(ctx, connect.NewRequest(r))
}

// ReportEvents reports events and how the sidecar is.
func (n *Node) ReportEvents(ctx context.Context, r *hubv1.ReportEventsRequest) (*hubv1.ReportEventsResponse, error) {
	return unary(ctx, n.events, r)
}

// GetTrust gets what is needed to trust the Hub.
func (n *Node) GetTrust(ctx context.Context, r *hubv1.GetTrustRequest) (*hubv1.Trust, error) {
	return unary(ctx, n.trust, r)
}

// Enroll makes this host a node.
func (n *Node) Enroll(ctx context.Context, r *hubv1.EnrollRequest) (*hubv1.EnrollResponse, error) {
	return unary(ctx, n.enroll, r)
}

// RenewNode replaces the node's certificate.
func (n *Node) RenewNode(ctx context.Context, r *hubv1.RenewNodeRequest) (*hubv1.EnrollResponse, error) {
	return unary(ctx, n.renew, r)
}
