// Package validate decodes every manifest strictly into the type of the
// Kubernetes API that it says it is, and holds the parts to each other.
package validate

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kustomization is the part of kustomize's type that is used, so that its module
// is not needed.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Namespace       string   `json:"namespace"`
	Resources       []string `json:"resources"`
	Images          []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

// kinds makes a value of each kind that a manifest may be.
func kinds(apiVersion, kind string) any {
	switch apiVersion + " " + kind {
	case "v1 Namespace":
		return &corev1.Namespace{}
	case "v1 Secret":
		return &corev1.Secret{}
	case "v1 ConfigMap":
		return &corev1.ConfigMap{}
	case "v1 Service":
		return &corev1.Service{}
	case "apps/v1 Deployment":
		return &appsv1.Deployment{}
	case "apps/v1 StatefulSet":
		return &appsv1.StatefulSet{}
	case "policy/v1 PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "networking.k8s.io/v1 NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return &monitoringv1.ServiceMonitor{}
	case "kustomize.config.k8s.io/v1beta1 Kustomization":
		return &kustomization{}
	}
	return nil
}

// decode reads a manifest strictly: a field that the API does not have, a field
// that is there twice, or a kind that is not known is a fault.
func decode(text []byte) (any, error) {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	v := kinds(head.APIVersion, head.Kind)
	if v == nil {
		return nil, fmt.Errorf("no kind %q of %q is known here", head.Kind, head.APIVersion)
	}
	return v, yaml.UnmarshalStrict(text, v)
}

// all decodes every manifest beside this directory.
func all(t *testing.T) map[string][]any {
	t.Helper()
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	found := map[string][]any{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
		for {
			document, err := r.Read()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			v, err := decode(document)
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
				continue
			}
			found[filepath.Base(file)] = append(found[filepath.Base(file)], v)
		}
	}
	return found
}

func TestStrictMeansStrict(t *testing.T) {
	for name, text := range map[string]string{
		"a field that there is not":    "apiVersion: v1\nkind: Service\nspec: {portz: []}",
		"a field that is there twice":  "apiVersion: v1\nkind: Service\nspec: {}\nspec: {}",
		"a value of another type":      "apiVersion: v1\nkind: Service\nspec: {ports: [{port: https}]}",
		"a kind that nobody knows":     "apiVersion: v1\nkind: Servize",
		"a version that there is not":  "apiVersion: apps/v9\nkind: Deployment",
		"a field of another container": "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {initContainers: [{restartPolice: Always}]}}}",
	} {
		if _, err := decode([]byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestEveryManifestIsOfTheAPI(t *testing.T) {
	found := all(t)
	k, ok := found["kustomization.yaml"][0].(*kustomization)
	if !ok {
		t.Fatal("there is no kustomization")
	}
	for file := range found {
		if file != "kustomization.yaml" && file != "secrets.example.yaml" && !slices.Contains(k.Resources, file) {
			t.Errorf("the kustomization leaves out %s", file)
		}
	}
	for _, r := range k.Resources {
		if len(found[r]) == 0 {
			t.Errorf("the kustomization names %s, which is not there", r)
		}
	}
}

// every returns the objects of a type.
func every[T any](t *testing.T) (list []T) {
	t.Helper()
	for _, objects := range all(t) {
		for _, o := range objects {
			if v, ok := o.(T); ok {
				list = append(list, v)
			}
		}
	}
	if len(list) == 0 {
		t.Fatalf("there is no %s", reflect.TypeFor[T]())
	}
	return list
}

// pods are the templates of what runs.
func pods(t *testing.T) map[string]corev1.PodTemplateSpec {
	t.Helper()
	all := map[string]corev1.PodTemplateSpec{}
	for _, d := range every[*appsv1.Deployment](t) {
		all[d.Name] = d.Spec.Template
		selects(t, d.Name, d.Spec.Selector, d.Spec.Template.Labels)
	}
	for _, s := range every[*appsv1.StatefulSet](t) {
		all[s.Name] = s.Spec.Template
		selects(t, s.Name, s.Spec.Selector, s.Spec.Template.Labels)
	}
	return all
}

func selects(t *testing.T, who string, selector *metav1.LabelSelector, on map[string]string) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || !s.Matches(labels.Set(on)) {
		t.Errorf("%s selects none of its pods: %v", who, err)
	}
}

func TestPodsAreConfined(t *testing.T) {
	for name, pod := range pods(t) {
		if c := pod.Spec.SecurityContext; c == nil || c.RunAsNonRoot == nil || !*c.RunAsNonRoot || c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s may run as root or without seccomp", name)
		}
		if a := pod.Spec.AutomountServiceAccountToken; a == nil || *a {
			t.Errorf("%s gets a token of the API that it does not need", name)
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			s := c.SecurityContext
			if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
				t.Errorf("%s/%s keeps privileges", name, c.Name)
			}
			if strings.HasPrefix(c.Image, "tlsmcp") && (s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem) {
				t.Errorf("%s/%s may write to its root", name, c.Name)
			}
		}
	}
}

func TestTheSidecarIsANativeOne(t *testing.T) {
	pod := pods(t)["payment-api"]
	if len(pod.Spec.InitContainers) != 1 {
		t.Fatal("payment-api has no sidecar")
	}
	c := pod.Spec.InitContainers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil {
		t.Error("the sidecar is an init container that is waited for, and not a sidecar")
	}
}

// TestNamesLeadSomewhere follows each reference by name.
func TestNamesLeadSomewhere(t *testing.T) {
	configs, secrets, ports := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range every[*corev1.ConfigMap](t) {
		configs[c.Name] = true
	}
	for _, s := range every[*corev1.Secret](t) {
		secrets[s.Name] = true
	}
	for name, pod := range pods(t) {
		volumes := map[string]bool{"state": name == "payment-api"} // by a claim
		for _, v := range pod.Spec.Volumes {
			volumes[v.Name] = true
			if v.ConfigMap != nil && !configs[v.ConfigMap.Name] {
				t.Errorf("%s: no ConfigMap %s", name, v.ConfigMap.Name)
			}
			if v.Secret != nil && !secrets[v.Secret.SecretName] {
				t.Errorf("%s: no Secret %s", name, v.Secret.SecretName)
			}
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s/%s: no volume %s", name, c.Name, m.Name)
				}
			}
			for _, e := range c.Env {
				if ref := e.ValueFrom; ref != nil && ref.SecretKeyRef != nil && !secrets[ref.SecretKeyRef.Name] {
					t.Errorf("%s/%s: no Secret %s", name, c.Name, ref.SecretKeyRef.Name)
				}
			}
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
		}
	}
	for _, s := range every[*corev1.Service](t) {
		reached := false
		for _, pod := range pods(t) {
			reached = reached || labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels))
		}
		if !reached {
			t.Errorf("service %s reaches no pod", s.Name)
		}
		for _, p := range s.Spec.Ports {
			if !ports[p.TargetPort.StrVal] {
				t.Errorf("service %s: no port %s", s.Name, p.TargetPort.String())
			}
		}
	}
	for _, n := range every[*networkingv1.NetworkPolicy](t) {
		for _, rule := range n.Spec.Ingress {
			for _, p := range rule.Ports {
				if !ports[p.Port.StrVal] {
					t.Errorf("network policy %s: no port %s", n.Name, p.Port)
				}
			}
		}
	}
	for _, m := range every[*monitoringv1.ServiceMonitor](t) {
		for _, e := range m.Spec.Endpoints {
			if !ports[e.Port] {
				t.Errorf("service monitor %s: no port %s", m.Name, e.Port)
			}
		}
	}
}
