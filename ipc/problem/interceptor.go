package problem

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/pkg/event"
)

// Limit refuses a call whose body says that it is over a limit of bytes. connect
// does so too, while it reads, and without a way out.
func Limit(next http.Handler, most int64) http.Handler {
	refusals := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > most {
			_ = refusals.Write(w, r, Connect(BodyTooLarge(most))) // a client that went away needs no answer
			return
		}
		next.ServeHTTP(w, r)
	})
}

// BodyTooLarge refuses a body over a limit of bytes.
func BodyTooLarge(most int64) *Error {
	return New(TooLarge, "body_too_large", fmt.Sprintf("send less at a time: a body may have %d bytes", most), "the body is over %d bytes", most)
}

// Interceptor gives every error of a server's calls the contract's form, and
// logs those that are the server's own fault.
type Interceptor struct{ Log *slog.Logger }

func (i Interceptor) mend(ctx context.Context, procedure string, err error) error {
	if err == nil {
		return nil
	}
	if p := From(err); p.Class == Internal && ctx.Err() == nil && connect.CodeOf(err) == connect.CodeUnknown {
		i.Log.Error("call failed", event.KeyURL, procedure, event.KeyError, err)
	}
	return Connect(err)
}

// WrapUnary implements connect.Interceptor.
func (i Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, r)
		return res, i.mend(ctx, r.Spec().Procedure, err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (i Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (i Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return i.mend(ctx, conn.Spec().Procedure, next(ctx, conn))
	}
}
