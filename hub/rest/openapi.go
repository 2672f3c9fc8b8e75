package rest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/version"
)

// object is a JSON object.
type object map[string]any

// OpenAPI describes the routes as OpenAPI 3.1, in JSON. It is made from the
// routes and from the contract's descriptors, which the handlers are made from
// too; openapi.yaml is the same, to read.
func OpenAPI(routes []Route) []byte {
	doc := openAPI(routes)
	doc["info"].(object)["version"] = version.Get().Version
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil { // it is made of strings, maps and lists
		panic(err)
	}
	return append(out, '\n')
}

func openAPI(routes []Route) object {
	schemas := object{"Problem": problemSchema()}
	paths := object{}
	for _, r := range routes {
		item, _ := paths[r.Path].(object)
		if item == nil {
			item = object{}
			paths[r.Path] = item
		}
		item[strings.ToLower(r.Method)] = operation(r, schemas)
	}
	plain := func(path, summary, mediaType string) {
		paths[path] = object{"get": object{"summary": summary, "security": []any{}, "responses": object{
			"200": object{"description": "OK", "content": object{mediaType: object{}}}}}}
	}
	plain("/crl", "The revocation list of the issuing CA, in DER", "application/pkix-crl")
	plain("/healthz", "Whether the Hub can serve", "application/json")
	plain("/metrics", "Metrics, as Prometheus reads them", "text/plain")
	plain("/openapi.json", "This document", "application/json")
	crl := object{"get": object{"summary": "The revocation list of an issuer, by its key id, in DER", "security": []any{},
		"parameters": []any{pathParameter("issuer")}, "responses": object{
			"200": object{"description": "OK", "content": object{"application/pkix-crl": object{}}}, "default": problemAnswer()}}}
	paths["/crl/{issuer}"] = crl
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "tlsmcp-hub", "version": "v1", "description": "Certificates, revocation, policy, events and fleet. gRPC serves the same calls, and streams beside them."},
		"paths":   paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{
				"bearer": object{"type": "http", "scheme": "bearer", "description": "tlsmcp-hub token create makes one"},
				"node":   object{"type": "mutualTLS", "description": "a sidecar's node certificate"},
			},
		},
		"security": []any{object{"bearer": []any{}}, object{"node": []any{}}},
	}
}

func operation(r Route, schemas object) object {
	method := hubv1.File_hub_v1_hub_proto.Services().ByName("HubService").Methods().ByName(protoreflect.Name(r.Call))
	in, out := method.Input(), method.Output()
	if r.Call == "PutPolicy" { // its body is the policy itself
		in = (&hubv1.Policy{}).ProtoReflect().Descriptor()
	}
	op := object{
		"operationId": r.Call,
		"responses": object{
			strconv.Itoa(r.Status): object{"description": http.StatusText(r.Status),
				"content": object{"application/json": object{"schema": schemaOf(out, schemas)}}},
			"default": problemAnswer(),
		},
	}
	if r.Call == "GetTrust" || r.Call == "Enroll" {
		op["security"] = []any{}
	}
	var parameters []any
	inPath := map[string]bool{}
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			inPath[name] = true
			parameters = append(parameters, pathParameter(name))
		}
	}
	switch {
	case r.Method == http.MethodPost || r.Method == http.MethodPut:
		op["requestBody"] = object{"content": object{"application/json": object{"schema": schemaOf(in, schemas)}}}
		if r.Call == "PutPolicy" {
			parameters = append(parameters, object{"name": "force", "in": "query", "schema": object{"type": "boolean"},
				"description": "put it whatever version it is based on"})
		}
	default:
		for i := range in.Fields().Len() {
			f := in.Fields().Get(i)
			if !inPath[string(f.Name())] {
				parameters = append(parameters, object{"name": string(f.Name()), "in": "query", "schema": fieldSchema(f, schemas)})
			}
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	return op
}

func pathParameter(name string) object {
	return object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}}
}

func problemAnswer() object {
	return object{"description": "a problem (RFC 9457)",
		"content": object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}}}
}

func problemSchema() object {
	text := func(about string) object { return object{"type": "string", "description": about} }
	return object{"type": "object", "properties": object{
		"type": text("about:blank"), "title": text("the status in words"), "status": object{"type": "integer"},
		"detail": text("a sentence"), "code": text("stable, for programs"), "hint": text("the way out"),
	}}
}

// schemaOf refers to a message's schema and adds it where it is not yet.
func schemaOf(m protoreflect.MessageDescriptor, schemas object) object {
	name := string(m.Name())
	if _, ok := schemas[name]; !ok {
		properties := object{}
		schemas[name] = object{"type": "object", "properties": properties}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			properties[string(f.Name())] = fieldSchema(f, schemas)
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func fieldSchema(f protoreflect.FieldDescriptor, schemas object) object {
	switch {
	case f.IsMap():
		return object{"type": "object", "additionalProperties": one(f.MapValue(), schemas)}
	case f.IsList():
		return object{"type": "array", "items": one(f, schemas)}
	}
	return one(f, schemas)
}

func one(f protoreflect.FieldDescriptor, schemas object) object {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return object{"type": "integer"}
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Timestamp" {
			return object{"type": "string", "format": "date-time"}
		}
		if f.Message().FullName() == "google.protobuf.Struct" {
			return object{"type": "object", "additionalProperties": true}
		}
		return schemaOf(f.Message(), schemas)
	}
	return object{"type": "string"}
}
