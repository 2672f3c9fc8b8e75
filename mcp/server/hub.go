package server

import (
	"context"

	"cyphers.ai/tlsmcp/ipc/hubclient"
)

// hub makes a client of the sidecar's Hub, in the name of the Unix user.
func (s *Server) hub(ctx context.Context) (*hubclient.Client, error) {
	token := ""
	if s.o.Token != nil {
		var err error
		if token, err = s.o.Token(); err != nil {
			return nil, refused("bad_token", "the person sets TLSMCP_TOKEN_FILE to a file that this user can read", "the Hub's token cannot be read: %s", err)
		}
	}
	c, err := s.o.Client.Hub(ctx, token)
	if err != nil {
		return nil, s.explain(err)
	}
	return c, nil
}

// askHub asks the Hub one thing: method is a method of the client, such as
// (*hubclient.Client).GetFleet.
func askHub[Req, Res any](ctx context.Context, s *Server, method func(*hubclient.Client, context.Context, Req) (Res, error), r Req) (Res, error) {
	var none Res
	c, err := s.hub(ctx)
	if err != nil {
		return none, err
	}
	defer c.Close()
	res, err := method(c, ctx, r)
	return res, s.explainHub(err)
}
