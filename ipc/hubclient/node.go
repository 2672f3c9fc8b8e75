package hubclient

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/erased"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
)

// Node is a client with the calls that a sidecar makes, and no others: a client
// of the whole service would make the daemon a third of a megabyte larger.
type Node struct {
	revocations *connect.Client[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta]
	policy      *connect.Client[hubv1.WatchPolicyRequest, hubv1.Policy]
	issue       *erased.Client
	events      *erased.Client
	trust       *erased.Client
	enroll      *erased.Client
	renew       *erased.Client
	transport   *renewable
}

// NewNode makes a client. It does not connect yet.
func NewNode(o Options) (*Node, error) {
	w, err := o.wire()
	if err != nil {
		return nil, err
	}
	unary := func(procedure string, answer proto.Message) *erased.Client {
		return erased.NewClient(w.client, w.base+procedure, answer, connect.WithGRPC())
	}
	return &Node{
		revocations: connect.NewClient[hubv1.WatchRevocationsRequest, hubv1.RevocationDelta](w.client, w.base+hubv1connect.HubServiceWatchRevocationsProcedure, connect.WithGRPC()),
		policy:      connect.NewClient[hubv1.WatchPolicyRequest, hubv1.Policy](w.client, w.base+hubv1connect.HubServiceWatchPolicyProcedure, connect.WithGRPC()),
		issue:       unary(hubv1connect.HubServiceIssueCertificateProcedure, &hubv1.Certificate{}),
		events:      unary(hubv1connect.HubServiceReportEventsProcedure, &hubv1.ReportEventsResponse{}),
		trust:       unary(hubv1connect.HubServiceGetTrustProcedure, &hubv1.Trust{}),
		enroll:      unary(hubv1connect.HubServiceEnrollProcedure, &hubv1.EnrollResponse{}),
		renew:       unary(hubv1connect.HubServiceRenewNodeProcedure, &hubv1.EnrollResponse{}),
		transport:   w.transport,
	}, nil
}

// call makes a call with one answer.
func call[Res proto.Message](ctx context.Context, c *erased.Client, r proto.Message) (Res, error) {
	answer, err := c.Call(ctx, r)
	if err != nil {
		var none Res
		return none, err
	}
	return answer.(Res), nil
}

// Close lets idle connections go.
func (n *Node) Close() {
	if n.transport != nil {
		n.transport.now.Load().CloseIdleConnections()
	}
}

// Renew has further calls make connections of their own, which show the
// certificate of now. Streams stay where they are.
func (n *Node) Renew() {
	if n.transport != nil {
		n.transport.renew()
	}
}

// IssueCertificate has a certificate issued.
func (n *Node) IssueCertificate(ctx context.Context, r *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error) {
	return call[*hubv1.Certificate](ctx, n.issue, r)
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
	return call[*hubv1.ReportEventsResponse](ctx, n.events, r)
}

// GetTrust gets what is needed to trust the Hub.
func (n *Node) GetTrust(ctx context.Context, r *hubv1.GetTrustRequest) (*hubv1.Trust, error) {
	return call[*hubv1.Trust](ctx, n.trust, r)
}

// Enroll makes this host a node.
func (n *Node) Enroll(ctx context.Context, r *hubv1.EnrollRequest) (*hubv1.EnrollResponse, error) {
	return call[*hubv1.EnrollResponse](ctx, n.enroll, r)
}

// RenewNode replaces the node's certificate.
func (n *Node) RenewNode(ctx context.Context, r *hubv1.RenewNodeRequest) (*hubv1.EnrollResponse, error) {
	return call[*hubv1.EnrollResponse](ctx, n.renew, r)
}
