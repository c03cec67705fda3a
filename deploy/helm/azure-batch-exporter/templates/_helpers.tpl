{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for what is appended to it: names of pods carry a number or hash, and end as a label. */}}
{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "exporter.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "exporter.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of the pods that serve, which the pod of `helm test` is not. */}}
{{- define "exporter.podSelector" -}}
{{ include "exporter.selectorLabels" . }}
app.kubernetes.io/component: exporter
{{- end }}

{{- define "exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: azure-batch-exporter
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "exporter.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- with $image.digest }}@{{ . }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* "true" where the pods are numbered and may have volumes: a StatefulSet. */}}
{{- define "exporter.stateful" -}}
{{- if or (gt (int .Values.shards) 1) .Values.persistence.enabled }}true{{ end }}
{{- end }}

{{- define "exporter.statePath" -}}
/var/lib/azure-batch-exporter
{{- end }}

{{/* The configuration file; empty where the chart does not write one. */}}
{{- define "exporter.config" -}}
{{- if not (or .Values.existingConfigMap .Values.demo.enabled) }}
{{- $config := deepCopy .Values.config }}
{{- if and .Values.persistence.enabled (not $config.state_file) }}
{{- $_ := set $config "state_file" (printf "%s/state.db" (include "exporter.statePath" .)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}
{{- end }}

{{- define "exporter.webSecret" -}}
{{- if .Values.webConfig }}{{ include "exporter.fullname" . }}-web{{ else }}{{ .Values.webConfigExistingSecret }}{{ end }}
{{- end }}

{{/* A probe: the user's own, or the path; with a web configuration, which may ask for a password or a
certificate, only whether there is a listener. */}}
{{- define "exporter.probe" -}}
{{- if .own }}
{{- toYaml .own }}
{{- else if include "exporter.webSecret" .root -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
timeoutSeconds: 5
{{- end }}
{{- end }}

{{/* What cannot work is refused, with the cure. */}}
{{- define "exporter.validate" -}}
{{- $v := .Values }}
{{- if not (or $v.config $v.existingConfigMap $v.demo.enabled) }}
{{- fail "there is nothing to poll: set config.accounts (see docs/configuration.md), existingConfigMap or demo.enabled" }}
{{- end }}
{{- if and $v.config $v.existingConfigMap }}
{{- fail "config and existingConfigMap are both set: leave one out" }}
{{- end }}
{{- if and $v.demo.enabled (or $v.config $v.existingConfigMap (gt (int $v.shards) 1) $v.persistence.enabled) }}
{{- fail "demo.enabled shows the simulated account alone: leave out config, existingConfigMap, shards and persistence" }}
{{- end }}
{{- if and $v.webConfig $v.webConfigExistingSecret }}
{{- fail "webConfig and webConfigExistingSecret are both set: leave one out" }}
{{- end }}
{{- if and $v.serviceMonitor.enabled $v.podMonitor.enabled }}
{{- fail "serviceMonitor and podMonitor are both enabled, which scrapes everything twice: leave one out" }}
{{- end }}
{{- if and $v.workloadIdentity.enabled (not $v.workloadIdentity.clientId) }}
{{- fail "workloadIdentity.clientId is missing: the client id of the managed identity" }}
{{- end }}
{{- if and (gt (int $v.shards) 1) (semverCompare "<1.28.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "shards need Kubernetes 1.28 or newer, which labels pods with their number; this is %s" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
