{{/* An endpoint of a ServiceMonitor or PodMonitor, from the values of either. */}}
{{- define "exporter.endpoint" -}}
port: metrics
scheme: {{ .scheme }}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- if .honorLabels }}
honorLabels: true
{{- end }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a monitor looks, and for what. */}}
{{- define "exporter.selector" -}}
namespaceSelector:
  matchNames:
    - {{ include "exporter.namespace" . }}
selector:
  matchLabels:
    {{- include "exporter.podSelector" . | nindent 4 }}
{{- end }}
