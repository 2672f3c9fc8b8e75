package inventory

// The document's shape, as the CycloneDX 1.6 JSON schema has it. Only what is
// written is here.

type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies,omitempty"`
}

type metadata struct {
	Timestamp string `json:"timestamp"`
	Tools     tools  `json:"tools"`
}

type tools struct {
	Components []tool `json:"components"`
}

type tool struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Crypto     crypto     `json:"cryptoProperties"`
	Properties []property `json:"properties,omitempty"`
}

type crypto struct {
	AssetType   string       `json:"assetType"`
	Algorithm   *algorithm   `json:"algorithmProperties,omitempty"`
	Certificate *certificate `json:"certificateProperties,omitempty"`
	Material    *material    `json:"relatedCryptoMaterialProperties,omitempty"`
	Protocol    *protocol    `json:"protocolProperties,omitempty"`
	OID         string       `json:"oid,omitempty"`
}

type algorithm struct {
	Primitive  string   `json:"primitive"`
	Parameters string   `json:"parameterSetIdentifier,omitempty"`
	Curve      string   `json:"curve,omitempty"`
	Functions  []string `json:"cryptoFunctions"`
	Classical  int      `json:"classicalSecurityLevel,omitempty"`
	Quantum    int      `json:"nistQuantumSecurityLevel"`
}

type certificate struct {
	Subject   string `json:"subjectName"`
	Issuer    string `json:"issuerName"`
	From      string `json:"notValidBefore"`
	Until     string `json:"notValidAfter"`
	Signature string `json:"signatureAlgorithmRef"`
	Key       string `json:"subjectPublicKeyRef"`
	Format    string `json:"certificateFormat"`
}

type material struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	Algorithm string `json:"algorithmRef"`
	Size      int    `json:"size"`
	Format    string `json:"format"`
}

type protocol struct {
	Type    string   `json:"type"`
	Version string   `json:"version"`
	Suites  []suite  `json:"cipherSuites"`
	Refs    []string `json:"cryptoRefArray"`
}

type suite struct {
	Name        string   `json:"name"`
	Identifiers []string `json:"identifiers"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
