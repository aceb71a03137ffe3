{{/* The image of all containers: by its digest too, if there is one. */}}
{{- define "ringfence.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The labels of every object that depend on the release. */}}
{{- define "ringfence.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Those of pods, from a list of the root and of the component's own labels, which come before the common ones. */}}
{{- define "ringfence.podLabels" -}}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
{{- with merge (dict) (index . 1) (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The name of a service account, from a list of the root and of the component. No two programs share one: each is held by its name. */}}
{{- define "ringfence.serviceAccountName" -}}
{{- $values := (index . 0).Values -}}
{{- $enforcer := $values.enforcer.serviceAccount.name | default "ringfence-enforcer" -}}
{{- $controller := $values.controller.serviceAccount.name | default "ringfence-controller" -}}
{{- if eq $enforcer $controller -}}
{{- fail "enforcer.serviceAccount.name and controller.serviceAccount.name are the same: give each program an account of its own" -}}
{{- end -}}
{{- ternary $enforcer $controller (eq (index . 1) "enforcer") -}}
{{- end }}
