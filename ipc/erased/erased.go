// Package erased makes calls and handlers of connect for all messages with one
// type. connect's own are generic: each method of a contract has its own copy of
// their code, six kilobytes of it, and the sidecar is to stay small. What goes
// over the wire is the same.
package erased

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// Message is any message: it is what it holds.
type Message struct{ proto.Message }

// Handler serves a method whose request and answer are one message each.
func Handler[Req, Res proto.Message](procedure string, answer func(context.Context, Req) (Res, error), options ...connect.HandlerOption) *connect.Handler {
	return handler(procedure, fresh[Req], func(ctx context.Context, m proto.Message) (proto.Message, error) { return answer(ctx, m.(Req)) }, options)
}

func handler(procedure string, fresh func() proto.Message, answer func(context.Context, proto.Message) (proto.Message, error), options []connect.HandlerOption) *connect.Handler {
	begin := connect.WithRequestInitializer(func(_ connect.Spec, m any) error {
		m.(*Message).Message = fresh()
		return nil
	})
	return connect.NewUnaryHandler(procedure, func(ctx context.Context, r *connect.Request[Message]) (*connect.Response[Message], error) {
		m, err := answer(ctx, r.Msg.Message)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&Message{m}), nil
	}, append([]connect.HandlerOption{begin}, options...)...)
}

// fresh makes an empty message of a type.
func fresh[M proto.Message]() proto.Message {
	var none M
	return none.ProtoReflect().New().Interface()
}

// Client calls one method.
type Client struct {
	calls *connect.Client[Message, Message]
}

// NewClient makes a client of the method at a URL, whose answers are of the type
// of answer.
func NewClient(http connect.HTTPClient, url string, answer proto.Message, options ...connect.ClientOption) *Client {
	begin := connect.WithResponseInitializer(func(_ connect.Spec, m any) error {
		m.(*Message).Message = answer.ProtoReflect().New().Interface()
		return nil
	})
	return &Client{connect.NewClient[Message, Message](http, url, append([]connect.ClientOption{begin}, options...)...)}
}

// Call makes a call.
func (c *Client) Call(ctx context.Context, r proto.Message) (proto.Message, error) {
	answer, err := c.calls.CallUnary(ctx, connect.NewRequest(&Message{r}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Message, nil
}
