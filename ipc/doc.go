// Package ipc is what two of our processes say to each other: the contracts as
// proto with the code that is generated from them, and the clients and
// listeners that both sides use.
package ipc

//go:generate go tool -modfile=../tools/go.mod buf lint
//go:generate go tool -modfile=../tools/go.mod buf generate
