// Command reference is the MCP server that the conformance suites are run
// against: it has the tools, resources and prompts that their scenarios ask for,
// and none of our code. With --http it listens, otherwise it speaks over standard
// input and output.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/mark3labs/mcp-go/server"
)

func main() {
	address := flag.String("http", "", "`ADDRESS` to listen on")
	flag.Parse()
	if err := run(*address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string) error {
	s := server.NewMCPServer("tlsmcp-reference", "1",
		server.WithToolCapabilities(true), server.WithResourceCapabilities(true, true), server.WithPromptCapabilities(true),
		server.WithCompletions(), server.WithLogging(), server.WithElicitation(), server.WithRoots())
	s.EnableSampling()
	addTools(s)
	addQuestions(s)
	addResources(s)
	addPrompts(s)
	if address == "" {
		return server.ServeStdio(s)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	mux := http.NewServeMux()
	mux.Handle("/mcp", server.NewStreamableHTTPServer(s))
	return (&http.Server{Handler: mux}).Serve(l)
}
