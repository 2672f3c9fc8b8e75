package control

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
	"cyphers.ai/tlsmcp/ipc/erased"
)

// handlers are the calls by their paths. They do what the generated
// controlv1connect.NewControlServiceHandler does, in a quarter of a megabyte less.
func handlers(c controlv1connect.ControlServiceHandler, options ...connect.HandlerOption) map[string]*connect.Handler {
	all := map[string]*connect.Handler{
		controlv1connect.ControlServiceExportAuditProcedure:      connect.NewServerStreamHandlerSimple(controlv1connect.ControlServiceExportAuditProcedure, c.ExportAudit, options...),
		controlv1connect.ControlServiceWatchEventsProcedure:      connect.NewServerStreamHandlerSimple(controlv1connect.ControlServiceWatchEventsProcedure, c.WatchEvents, options...),
		controlv1connect.ControlServiceWatchVerifyAuditProcedure: connect.NewServerStreamHandlerSimple(controlv1connect.ControlServiceWatchVerifyAuditProcedure, c.WatchVerifyAudit, options...),
		controlv1connect.ControlServiceWatchCountersProcedure:    connect.NewServerStreamHandlerSimple(controlv1connect.ControlServiceWatchCountersProcedure, c.WatchCounters, options...),
	}
	add := adder{all, options}
	unary(add, controlv1connect.ControlServiceHelloProcedure, c.Hello)
	unary(add, controlv1connect.ControlServiceGetStatusProcedure, c.GetStatus)
	unary(add, controlv1connect.ControlServiceGetConfigProcedure, c.GetConfig)
	unary(add, controlv1connect.ControlServiceGetCertificatesProcedure, c.GetCertificates)
	unary(add, controlv1connect.ControlServiceGetTrustProcedure, c.GetTrust)
	unary(add, controlv1connect.ControlServiceGetHubProcedure, c.GetHub)
	unary(add, controlv1connect.ControlServiceGetScoreProcedure, c.GetScore)
	unary(add, controlv1connect.ControlServiceListConnectionsProcedure, c.ListConnections)
	unary(add, controlv1connect.ControlServiceCloseConnectionsProcedure, c.CloseConnections)
	unary(add, controlv1connect.ControlServiceListAgentsProcedure, c.ListAgents)
	unary(add, controlv1connect.ControlServiceListToolsProcedure, c.ListTools)
	unary(add, controlv1connect.ControlServiceApproveToolsProcedure, c.ApproveTools)
	unary(add, controlv1connect.ControlServiceSearchAuditProcedure, c.SearchAudit)
	unary(add, controlv1connect.ControlServiceVerifyAuditProcedure, c.VerifyAudit)
	unary(add, controlv1connect.ControlServiceReloadProcedure, c.Reload)
	unary(add, controlv1connect.ControlServiceDrainProcedure, c.Drain)
	unary(add, controlv1connect.ControlServiceSetLogLevelProcedure, c.SetLogLevel)
	return all
}

// adder takes handlers.
type adder struct {
	all     map[string]*connect.Handler
	options []connect.HandlerOption
}

func unary[Req, Res proto.Message](a adder, procedure string, answer func(context.Context, Req) (Res, error)) {
	a.all[procedure] = erased.Handler(procedure, answer, a.options...)
}
