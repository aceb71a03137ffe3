{{/* The image of all containers: by its digest, if there is one, whatever its tag. */}}
{{- define "ringfence.image" -}}
{{ .Values.image.repository }}{{ with .Values.image.tag }}:{{ . }}{{ end }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}
